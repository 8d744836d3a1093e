package admin

import (
	"context"
	"time"

	"vmcryptfs/fs"
	"vmcryptfs/fs/ability"
	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/rekey"
	"vmcryptfs/fs/wire"
	"vmcryptfs/keys"
)

// Source is the daemon behind the socket. Its methods may be called concurrently and
// end when ctx does.
type Source interface {
	// Mount tells which mount this is; no I/O.
	Mount() Mount
	// Status may wait a moment for the counts of files.
	Status(ctx context.Context) (Status, error)
	// Health judges the mount, in a few seconds at most, with no walk over the datastore.
	Health(ctx context.Context) Health
	// Files calls each for every regular file and counts them; it ends with each's error.
	Files(ctx context.Context, each func(File) error) (backing.Census, error)
	// Lock wipes the KEKs.
	Lock(ctx context.Context) (LockResult, error)
	// Unlock fetches the current KEK: a keys.ErrNoKey or keys.ErrSeal says why it cannot.
	Unlock(ctx context.Context) error
	// Leave has the mount end, once it was unmounted lazily, with the last user of its files.
	Leave(ctx context.Context) error
	// Remount changes options of the kernel's ("ro", "nosuid", …): unix.EBUSY while files are open
	// for writing. The Server calls it while no work is under way.
	Remount(ctx context.Context, options []string) error
	// Settings are the proven settings, for a change to begin from. Settings refuses what
	// ChangeSettings would refuse: unix.EROFS, a keys.ErrNoKey or keys.ErrSeal,
	// datastore.ErrChanged.
	Settings(ctx context.Context) (Settings, error)
	// ChangeSettings seals other rules and takes them up; it returns the new serial. Errors are
	// those of Settings, and wire.ErrRequest for rules that are none.
	ChangeSettings(ctx context.Context, r SettingsRequest) (serial uint64, err error)
	// Rekey is rekey.Run over the mounted datastore; the Server calls it as a work of its
	// work.Runner.
	Rekey(ctx context.Context, r rekey.Request, each func(rekey.Event) error) (rekey.Summary, error)
}

// Mount says which mount a socket belongs to.
type Mount struct {
	PID        int    `json:"pid"`
	Version    string `json:"version"`
	Datastore  string `json:"datastore"` // UUID
	Backing    string `json:"backing"`
	Mountpoint string `json:"mountpoint"`
	// Device ("0:58") and MountID are the mount as /proc/self/mountinfo lists it, or listed it.
	Device  string `json:"device,omitempty"`
	MountID int    `json:"mount_id,omitempty"`
	Options string `json:"options,omitempty"` // as they were given, for mount -o
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
	Copy        bool         `json:"copy"` // of a datastore, mounted to be read beside it
	Locked      bool         `json:"locked"`
	Verified    bool         `json:"verified"`  // the settings' seal was checked
	Dev         bool         `json:"dev"`       // keys of the development KMS lie on this host
	KEK         wire.KeyName `json:"kek"`       // the current KEK, for new files
	Providers   []Provider   `json:"providers"` // by name
	Keys        []Key        `json:"keys"`      // KEKs held in memory
	// Rekey is under way; nil: none is.
	Rekey *rekey.Status `json:"rekey,omitempty"`
	Files Files         `json:"files"` // by form and by what is wrong
	// FileSystem is what BACKING\'s can do, as found at the mount.
	FileSystem *ability.Report `json:"file_system"`
	Protection Protection      `json:"protection"`   // of the daemon
	IO         fs.Stats        `json:"io"`           // since the mount
	Warnings   []string        `json:"warnings"`     // each one line, what and what to do
	Log        string          `json:"log,omitzero"` // the daemon's log file; empty: standard error
}

// States of a mount.
const (
	StateServing = "serving"
	StateDead    = "dead"   // its daemon is gone, every call gives ENOTCONN
	StateSilent  = "silent" // its daemon does not answer
)

// Protection is how the kernel spares the daemon, on which guests' disks depend.
type Protection struct {
	IOFlusher bool `json:"io_flusher"`    // PR_SET_IO_FLUSHER: no memory is freed for it by I/O
	OOMScore  int  `json:"oom_score_adj"` // -1000…1000: killed for memory after processes with more
}

// Provider is a KMS with the health of its servers as last seen.
type Provider struct {
	Name    string              `json:"name"`
	Servers []keys.ServerHealth `json:"servers"`
	// Certificates are those that its sessions stand on, the one that ends first before
	// the others.
	Certificates []Certificate `json:"certificates"`
	// Changed is when another configuration of it was taken up last, and Changes what
	// changed, a line each: "timeout: 5s → 3s"; zero and empty: nothing since the mount.
	Changed time.Time `json:"changed,omitzero"`
	Changes []string  `json:"changes,omitempty"`
}

// Certificate is one that sessions with key servers stand on.
type Certificate struct {
	Role     string    `json:"role"` // "client certificate", "CA certificate", "intermediate certificate" or "server certificate"
	Subject  string    `json:"subject"`
	Issuer   string    `json:"issuer"`
	File     string    `json:"file,omitempty"`    // empty for what a server sends
	Servers  []string  `json:"servers,omitempty"` // host:port of those that need it; empty: all
	NotAfter time.Time `json:"not_after"`
	Days     int       `json:"days"` // whole days until then; below 0: it has ended
}

// Key is a KEK held in memory.
type Key struct {
	wire.KeyName
	State string    `json:"state"` // KMIP state: "active", …
	Age   int64     `json:"age"`   // seconds since it was fetched
	Since time.Time `json:"since"`
	Ends  time.Time `json:"ends,omitzero"` // when it will wrap no new file; zero: the KMS says nothing of it
}

// Files counts the datastore's files.
type Files struct {
	backing.Census
	Complete bool `json:"complete"` // false: not all are counted yet, or can be; the counts are too low
	// CountedAt is when the walk began that counted them: what was done before is counted.
	CountedAt time.Time `json:"counted_at,omitzero"`
}

// File is one regular file of the datastore.
type File struct {
	Path string `json:"path"` // below BACKING
	// Raw is the path's bytes when they are not UTF-8.
	Raw  []byte `json:"raw,omitempty"`
	Form string `json:"form"` // the form, or what is wrong
	Rule string `json:"rule"` // the rule in words: "disks", …
	// About is the same, under the name that classify and info have for it: their rule is a
	// number.
	About string `json:"about"`
}

// Summary is the last line of /v1/files: the counts, or what ended the walk.
type Summary struct {
	Census *backing.Census `json:"census,omitempty"`
	Error  string          `json:"error,omitempty"`
}

// LockResult tells what a lock left behind.
type LockResult struct {
	// OpenFiles counts encrypted files in use: they keep their DEKs and go on working.
	OpenFiles int64 `json:"open_files"`
}
