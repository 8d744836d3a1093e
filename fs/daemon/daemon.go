package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"vmcryptfs/advice"
	"vmcryptfs/cryptoblk"
	vmfs "vmcryptfs/fs"
	"vmcryptfs/fs/admin"
	"vmcryptfs/fs/datastore"
	"vmcryptfs/fs/mounts"
	"vmcryptfs/fs/moves"
	"vmcryptfs/fs/transport"
	"vmcryptfs/fs/work"
	"vmcryptfs/keys"
	"vmcryptfs/words"
)

const (
	// firstVerify bounds how long a mount waits for a KMS before coming up without one.
	firstVerify = 6 * time.Second
	// verifyEvery is the pause between attempts to check the settings' seal.
	verifyEvery = 3 * time.Second
)

// EndTime bounds how long a daemon may take to end once the mount is gone.
const EndTime = 30 * time.Second

// errInterrupted: a signal came before the mount was there.
var errInterrupted error = advice.New(errors.New("interrupted"), "nothing is mounted; run it again to mount")

// daemon is one mount. A daemon assembles the parts and takes all apart again.
type daemon struct {
	config   Config
	log      *slog.Logger
	detached bool // standard error becomes the datastore's log file

	// Set by run before anyone else looks, then immutable.
	since     time.Time
	logPath   string
	store     *datastore.Store
	keys      *KeySource
	fs        *vmfs.FS
	moves     *moves.Manager // of fs
	dead      *mounts.Mount  // the dead mount to replace; nil: none
	bare      *os.File       // MOUNTPOINT itself, until the mount is there; nil: cannot be opened
	protected admin.Protection
	memory    string       // warning of too little locked memory; empty: none
	below     string       // warning of files in MOUNTPOINT below the mount; empty: none
	at        mounts.Mount // as the kernel lists the mount; Device is empty for a mount gone at once

	works   work.Runner // long works on the datastore
	probes  probes      // for health
	leaving atomic.Bool // umount --lazy asked for the end
	modes   sync.Mutex  // held over I/O, from a look at the mount's mode until fs has the same mode
	unfit   bool        // BACKING cannot be written, though the mount may be; guarded by modes

	mu     sync.Mutex       // guards server and seal; held over I/O only while attaching the mount
	server transport.Server // nil: not mounted yet
	seal   error            // why the settings are not verified; nil: verified
}

// run serves until the mount is gone. Once the mount answers, run calls ready; an error of ready
// ends the mount (see announce).
func (d *daemon) run(ctx context.Context, ready func() error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer d.onSignal(func() { cancel(errInterrupted) })()
	d.protected = protectProcess(d.log)
	if err := prepareProcess(); err != nil {
		return err
	}
	d.memory = memoryWarning()
	defer d.closeBare()
	if err := d.checkPaths(); err != nil {
		return err
	}
	var err error
	if d.keys, err = OpenKeys(ctx, d.config.Keys, d.log); err != nil {
		return err
	}
	defer d.keys.Close()
	if err := d.openStore(ctx); err != nil {
		return err
	}
	defer d.store.Close()
	if d.detached {
		if d.logPath, err = openLog(d.name()); err != nil {
			return fmt.Errorf("log file: %w", err)
		}
	}
	if err := d.trust(ctx); err != nil {
		return err
	}
	d.keys.Cache.Watch()
	return d.serve(ctx, ready)
}

// datastoreID is the datastore's UUID.
func (d *daemon) datastoreID() string { return d.store.Settings().ID.String() }

// name is the name of the mount's control socket and log: the datastore's id, with a suffix for a
// copy.
func (d *daemon) name() string {
	if d.config.Copy {
		return d.store.CopyName()
	}
	return d.datastoreID()
}

// prepareProcess makes this process fit to hold keys, and to make files with the modes asked for
// by callers.
func prepareProcess() error {
	if err := cryptoblk.CheckImplementation(); err != nil {
		return advice.Usage(err)
	}
	unix.Umask(0) // callers of the file system choose all bits of a mode
	if err := keys.HardenProcess(); err != nil {
		return fmt.Errorf("protect the memory for keys: %w", err)
	}
	return nil
}

// openStore opens BACKING. With --dev, a BACKING that is no datastore first becomes one.
func (d *daemon) openStore(ctx context.Context) (err error) {
	d.store, err = datastore.Open(d.config.Backing, true)
	if errors.Is(err, datastore.ErrBusy) {
		return whoKeeps(ctx, d.config.Backing, err)
	}
	if !errors.Is(err, datastore.ErrNone) {
		return err
	}
	if !d.config.Keys.Dev || d.config.Copy {
		return advice.New(err, words.Command([]string{"vmcryptfs", "init", d.config.Backing})+" makes it one")
	}
	provider, err := d.keys.Choose("")
	if err != nil {
		return err
	}
	if _, err := Init(ctx, d.config.Backing, provider, "", false); err != nil {
		return err
	}
	d.store, err = datastore.Open(d.config.Backing, true)
	return err
}

// trust compares the settings with this host's memory, and checks the seal if the KMS answers.
// Without a KMS the mount comes up all the same (design §5).
func (d *daemon) trust(ctx context.Context) error {
	trust := d.store.Trust
	if d.config.Copy {
		trust = d.store.TrustCopy
	}
	if err := trust(d.config.Datastore, d.config.KEK, d.config.Trust); err != nil {
		return err
	}
	provider := d.store.Settings().Provider
	if d.keys.Note() == "" && !slices.Contains(d.keys.names(), provider) {
		return advice.Usagef("%s needs provider %q, and the configured ones are: %s; add it to kms.toml, or see --kms and --dev",
			d.config.Backing, provider, strings.Join(d.keys.names(), ", "))
	}
	err := d.verify(ctx, firstVerify)
	if isForged(err) {
		return err
	}
	if err != nil {
		d.log.Warn("the settings are not verified yet; encrypted files give ENOKEY", "error", err)
	}
	return context.Cause(ctx)
}

// verify checks the settings' seal once, within limit, and keeps the result.
func (d *daemon) verify(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := d.store.Verify(ctx, d.keys.Cache)
	if !isForged(err) {
		err = d.keys.Explain(err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.seal = err
	return err
}

// isForged reports whether err means that the settings were made without the key, or are older
// than this host's memory. No later answer of a KMS changes such a result.
func isForged(err error) bool {
	return errors.Is(err, keys.ErrSeal) || errors.Is(err, datastore.ErrUntrusted)
}

// keepVerifying retries until the seal is proven right or wrong, or ctx ends.
func (d *daemon) keepVerifying(ctx context.Context) {
	if d.store.Verified() {
		return
	}
	tick := time.NewTicker(verifyEvery)
	defer tick.Stop()
	for !d.store.Verified() {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := d.verify(ctx, 2*verifyEvery)
		if isForged(err) {
			d.log.Error("the settings were changed without the datastore's key; no file is created any more", "backing", d.config.Backing, "error", err)
			return
		}
	}
	d.log.Info("the settings are verified", "backing", d.config.Backing)
}

// serve mounts BACKING and answers until the mount is gone. The parts end in reverse order.
func (d *daemon) serve(ctx context.Context, ready func() error) (err error) {
	socket, err := d.listen(ctx)
	if err != nil {
		return err
	}
	defer socket.Close()
	if err := d.openFS(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.fs.Close()) }()
	d.openMoves()
	defer d.closeMoves()                   // before fs: a step under way comes to its end
	if err := holdToQuotas(); err != nil { // openFS has raised limits
		d.log.Info("quotas of BACKING may not hold for those for whom this process writes", "error", err)
	}
	if err := d.probes.open(d.store.Fd()); err != nil {
		return fmt.Errorf("serve %s: %w", d.config.Backing, err)
	}
	defer d.probes.backing.Close()
	server, err := d.mount(ctx)
	if err != nil {
		return err
	}
	defer server.Wait()
	d.lookBelow()
	control := admin.Serve(socket, d, &d.works, d.log)
	defer control.Close()
	defer d.keepUp()()
	if err := d.announce(server, ready); err != nil {
		return err
	}
	return d.untilGone(server)
}

// listen makes the control socket of the mount.
func (d *daemon) listen(ctx context.Context) (*admin.Listener, error) {
	dir, err := datastore.RunDir()
	if err != nil {
		return nil, err
	}
	socket, err := admin.Listen(dir, d.name())
	if err != nil {
		return nil, d.besideOriginal(ctx, err)
	}
	return socket, nil
}

// openFS makes the file system over the open datastore.
func (d *daemon) openFS() (err error) {
	d.fs, err = vmfs.New(vmfs.Config{
		Store:       d.store,
		Keys:        d.keys.Cache,
		Unencrypted: vmfs.Unencrypted(d.config.Unencrypted),
		ReadOnly:    d.config.ReadOnly,
		Log:         d.log,
		Seal:        d.editSettings,
	})
	if err != nil {
		return fmt.Errorf("serve %s: %w", d.config.Backing, err)
	}
	return nil
}

// mount puts the file system at MOUNTPOINT. The caller waits for the end of the server.
func (d *daemon) mount(ctx context.Context) (transport.Server, error) {
	d.since = time.Now()
	server, err := transport.Prepare(d.config.Mountpoint, d.fs.Raw(), d.transportOptions())
	if err != nil {
		return nil, err
	}
	if err := d.attach(ctx, server); err != nil {
		if !errors.Is(err, transport.ErrCovered) {
			server.Wait()
		}
		return nil, err
	}
	return server, nil
}

// keepUp starts the work in the background for as long as the mount lasts. end stops the work and
// waits for the end.
func (d *daemon) keepUp() (end func()) {
	background, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		d.keepVerifying(background)
		d.settlePlaces(background)
		d.goOnMoving(background)
	})
	running.Go(func() { d.watchPlace(background) })
	running.Go(func() { d.keys.keepDev(background, d.log) })
	running.Go(func() { d.keepTellingExpiry(background) })
	running.Go(func() { d.keys.keepReloading(background, d.log) })
	running.Go(func() { d.fs.Census().Keep(background) })
	return func() {
		stop()
		running.Wait()
	}
}

// untilGone waits for the end of the mount. A remaining dead mount is an error.
func (d *daemon) untilGone(server transport.Server) error {
	if d.memory != "" {
		d.log.Warn(d.memory)
	}
	d.log.Info("serving", "backing", d.config.Backing, "mountpoint", d.config.Mountpoint, "datastore", d.datastoreID())
	server.Wait()
	if err := leftDead(server); err != nil {
		return err
	}
	d.log.Info("unmounted", "mountpoint", d.config.Mountpoint)
	return ClearDead(d.config.Mountpoint, d.config.Backing)
}

// attach puts the mount at MOUNTPOINT, unless a signal came before: then MOUNTPOINT is unchanged.
// A later signal asks for an unmount (onSignal, also under d.mu).
func (d *daemon) attach(ctx context.Context, server transport.Server) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	err := context.Cause(ctx)
	if err == nil {
		err = d.protectBare()
	}
	if err != nil {
		return errors.Join(err, server.Unmount(true))
	}
	if err := server.Attach(d.dead); err != nil {
		return err
	}
	at, err := server.Find()
	if err != nil {
		d.log.Warn("the mount is not at its place", "error", err)
	} else {
		d.at = at
	}
	d.server = server
	return nil
}

// announce reports to the waiting parent that the mount serves. A mount for which no parent waits
// any more is ended, with one exception: a mount in the place of a dead one stays, since guests
// without a mount would write in clear.
func (d *daemon) announce(server transport.Server, ready func() error) error {
	err := ready()
	if err == nil {
		return nil
	}
	if d.dead == nil {
		return errors.Join(err, server.Unmount(true))
	}
	d.log.Warn("nobody waits for this mount any more; serving on, since it took the place of a dead one", "error", err)
	return nil
}

// leftDead returns an error for a mount still there after the end of the server: somebody aborted
// the connection, and callers meet a dead mount until the next mount. umount -f aborts the
// connection too, a moment before unmounting an unused mount; so leftDead waits for up to
// DeadTime.
func leftDead(server transport.Server) error {
	for deadline := time.Now().Add(DeadTime); ; time.Sleep(DeadTime / 100) {
		m, err := server.Find()
		if errors.Is(err, mounts.ErrNotMounted) || errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		err = Ask(m.Mountpoint, DeadTime)
		switch {
		case err == nil, errors.Is(err, mounts.ErrNotMounted): // a new mount of the same number
			return nil
		case time.Now().After(deadline):
			return fmt.Errorf("the connection to the kernel was aborted, by umount -f or in /sys/fs/fuse/connections: a dead mount is on %s: %w", m.Mountpoint, unix.ENOTCONN)
		}
	}
}

// transportOptions are the kernel's options of the mount.
func (d *daemon) transportOptions() transport.Options {
	allowOther := os.Geteuid() == 0
	if d.config.AllowOther != nil {
		allowOther = *d.config.AllowOther
	}
	return transport.Options{
		FsName:     d.config.Backing,
		AllowOther: allowOther,
		ReadOnly:   d.config.ReadOnly,
		Extra:      d.config.Kernel,
		Log:        d.log,
		Transport:  d.config.Transport,
		OnInit:     func(n transport.Notifier) { d.fs.SetNotifier(n) },
	}
}
