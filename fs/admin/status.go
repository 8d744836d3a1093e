package admin

import (
	"context"
	"time"

	"vmcryptfs/fs"
	"vmcryptfs/fs/ability"
	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/moves"
	"vmcryptfs/fs/policy"
	"vmcryptfs/fs/rekey"
	"vmcryptfs/fs/wire"
	"vmcryptfs/keys"
)

// Source is the daemon behind the socket. All methods may be called concurrently, and return when
// ctx ends.
type Source interface {
	// Mount describes the mount, without I/O.
	Mount() Mount
	// Status may wait a moment for the counts of files.
	Status(ctx context.Context) (Status, error)
	// Health judges the mount, in a few seconds at most, with no walk over the datastore.
	Health(ctx context.Context) Health
	// Files calls each for every regular file and counts the files. An error of each ends Files.
	Files(ctx context.Context, each func(File) error) (backing.Census, error)
	// Lock wipes the KEKs.
	Lock(ctx context.Context) (LockResult, error)
	// Unlock fetches the current KEK. keys.ErrNoKey or keys.ErrSeal in the error gives the reason
	// of a failure.
	Unlock(ctx context.Context) error
	// Leave makes a mount that was unmounted lazily end with the last user of its files.
	Leave(ctx context.Context) error
	// Remount changes options of the kernel's ("ro", "nosuid", …). While files are open for
	// writing, read-only fails with unix.EBUSY. The Server calls Remount only while no work is
	// under way.
	Remount(ctx context.Context, options []string) error
	// Settings are the proven settings, for a change to begin from. Settings refuses what
	// ChangeSettings would refuse: unix.EROFS, a keys.ErrNoKey or keys.ErrSeal,
	// datastore.ErrChanged.
	Settings(ctx context.Context) (Settings, error)
	// ChangeSettings seals other rules and takes them up; it returns the new serial. Errors are
	// those of Settings, and wire.ErrRequest for rules that are none.
	ChangeSettings(ctx context.Context, r SettingsRequest) (serial uint64, err error)
	// Policies is policy.List of the mounted datastore.
	Policies(ctx context.Context) (policy.Listing, error)
	// ChangePolicies is policy.Do for the mounted datastore, whose file system goes by the change
	// when ChangePolicies returns. unix.EROFS for a mount that is read-only.
	ChangePolicies(ctx context.Context, r policy.Request) (policy.Result, error)
	// CheckPolicies is moves.Manager.Check of the mounted datastore.
	CheckPolicies(ctx context.Context, r moves.Check, each func(moves.Differ) error) (moves.Checked, error)
	// ApplyPolicies is moves.Manager.Apply for the mounted datastore, beside other works. unix.EROFS for
	// a mount that is read-only.
	ApplyPolicies(ctx context.Context, r moves.Request, each func(moves.Event) error) (moves.Summary, error)
	// Moves is moves.Manager.List.
	Moves(ctx context.Context) (moves.Changed, error)
	// ChangeMoves is moves.Manager.Do. unix.EROFS for a mount that is read-only.
	ChangeMoves(ctx context.Context, r moves.Change) (moves.Changed, error)
	// Rekey is rekey.Run over the mounted datastore. The Server calls Rekey as a work of its
	// work.Runner.
	Rekey(ctx context.Context, r rekey.Request, each func(rekey.Event) error) (rekey.Summary, error)
}

// Mount describes the mount to which a socket belongs.
type Mount struct {
	PID        int    `json:"pid"`
	Version    string `json:"version"`
	Datastore  string `json:"datastore"` // UUID
	Backing    string `json:"backing"`
	Mountpoint string `json:"mountpoint"`
	// Device ("0:58") and MountID are those of the mount in /proc/self/mountinfo, now or at the
	// last look.
	Device  string `json:"device,omitempty"`
	MountID int    `json:"mount_id,omitempty"`
	Options string `json:"options,omitempty"` // as given at the mount, in the form of mount -o
}

// Status is a mount at a glance.
type Status struct {
	State string `json:"state"` // StateServing
	Mount
	Place
	Since       time.Time    `json:"since"`
	Transport   string       `json:"transport"`   // "go-fuse"
	Cipher      string       `json:"cipher"`      // implementation: "portable"
	Unencrypted string       `json:"unencrypted"` // "deny", "read" or "write"
	ReadOnly    bool         `json:"read_only"`
	Copy        bool         `json:"copy"` // BACKING is a copy of a datastore, mounted for reading beside the original
	Locked      bool         `json:"locked"`
	Verified    bool         `json:"verified"`  // the settings' seal was checked
	Dev         bool         `json:"dev"`       // the keys of the development KMS lie on this host
	KEK         wire.KeyName `json:"kek"`       // the current KEK, for new files
	Providers   []Provider   `json:"providers"` // by name
	Keys        []Key        `json:"keys"`      // KEKs held in memory
	// Rekey is under way; nil: none is.
	Rekey *rekey.Status `json:"rekey,omitempty"`
	// Moves are under way; nil: none is.
	Moves *moves.Status `json:"moves,omitempty"`
	Files Files         `json:"files"` // by form and by kind of damage
	// Adopting counts the places where cleartext is served under names that encrypt.
	Adopting int `json:"adopting,omitzero"`
	// Lacking are places that do not hold, at most 100; nil also where BACKING does not answer.
	Lacking []policy.Lack `json:"lacking,omitempty"`
	// FileSystem lists the abilities of BACKING's file system, as found at the mount.
	FileSystem *ability.Report `json:"file_system"`
	Protection Protection      `json:"protection"`   // of the daemon
	IO         fs.Stats        `json:"io"`           // since the mount
	Warnings   []string        `json:"warnings"`     // one line each: the state and the remedy
	Log        string          `json:"log,omitzero"` // the daemon's log file; empty: standard error
}

// States of a mount.
const (
	StateServing = "serving"
	StateDead    = "dead"   // the daemon is gone; every call gives ENOTCONN
	StateSilent  = "silent" // the daemon does not answer
)

// Protection says how the kernel spares the daemon, since guests' disks depend on the daemon.
type Protection struct {
	IOFlusher bool `json:"io_flusher"`    // PR_SET_IO_FLUSHER: the kernel frees no memory for the daemon by I/O
	OOMScore  int  `json:"oom_score_adj"` // -1000…1000: killed for memory after processes with more
}

// Provider is a KMS with the health of its servers, as last seen.
type Provider struct {
	Name    string              `json:"name"`
	Servers []keys.ServerHealth `json:"servers"`
	// Certificates are the certificates on which the sessions depend, the first to end first.
	Certificates []Certificate `json:"certificates"`
	// Changed is when the configuration last changed while mounted. Changes has one line for each
	// change: "timeout: 5s → 3s". Both are empty for a configuration unchanged since the mount.
	Changed time.Time `json:"changed,omitzero"`
	Changes []string  `json:"changes,omitempty"`
}

// Certificate is a certificate on which sessions with key servers depend.
type Certificate struct {
	Role     string    `json:"role"` // "client certificate", "CA certificate", "intermediate certificate" or "server certificate"
	Subject  string    `json:"subject"`
	Issuer   string    `json:"issuer"`
	File     string    `json:"file,omitempty"`    // empty for a certificate sent by a server
	Servers  []string  `json:"servers,omitempty"` // host:port of each server concerned; empty: all servers
	NotAfter time.Time `json:"not_after"`
	Days     int       `json:"days"` // whole days until NotAfter; negative afterwards
}

// Key is a KEK held in memory.
type Key struct {
	wire.KeyName
	State string    `json:"state"` // KMIP state: "active", …
	Age   int64     `json:"age"`   // seconds since the key was fetched
	Since time.Time `json:"since"`
	Ends  time.Time `json:"ends,omitzero"` // when the key stops wrapping new files; zero: the KMS names no date
}

// Files counts the datastore's files.
type Files struct {
	backing.Census
	Complete bool `json:"complete"` // false: not all are counted yet, or can be; the counts are too low
	// CountedAt is the beginning of the walk that counted. The counts include all changes made
	// before.
	CountedAt time.Time `json:"counted_at,omitzero"`
}

// File is one regular file of the datastore.
type File struct {
	Path string `json:"path"` // below BACKING
	// Raw holds the bytes of a path that is not UTF-8.
	Raw  []byte `json:"raw,omitempty"`
	Form string `json:"form"` // the form, or the kind of damage
	Rule string `json:"rule"` // the rule in words: "disks", …
	// About equals Rule. classify and info use the name About, since their rule is a number.
	About string `json:"about"`
}

// Summary is the last line of /v1/files: the counts, or the error that ended the walk.
type Summary struct {
	Census *backing.Census `json:"census,omitempty"`
	Error  string          `json:"error,omitempty"`
}

// LockResult says what a lock left in use.
type LockResult struct {
	// OpenFiles counts encrypted files in use, which keep their DEKs and go on working.
	OpenFiles int64 `json:"open_files"`
}
