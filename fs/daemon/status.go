package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"vmcryptfs/cryptoblk"
	"vmcryptfs/fs/admin"
	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/moves"
	"vmcryptfs/fs/policy"
	"vmcryptfs/fs/wire"
	"vmcryptfs/keys"
	"vmcryptfs/keys/kmip"
)

// A daemon answers on its control socket as an admin.Source.
var _ admin.Source = (*daemon)(nil)

// countTime is how long a status waits for the census to be brought up to date.
const countTime = time.Second

// Mount describes the mount for clients of the control socket.
func (d *daemon) Mount() admin.Mount {
	return admin.Mount{
		PID:        os.Getpid(),
		Version:    Version(),
		Datastore:  d.datastoreID(),
		Backing:    d.config.Backing,
		Mountpoint: d.config.Mountpoint,
		Device:     d.at.Device,
		MountID:    d.at.ID,
		Options:    d.config.told(),
	}
}

// Status is the mount at a glance.
func (d *daemon) Status(ctx context.Context) (admin.Status, error) {
	s := d.glance(ctx, countTime)
	s.Lacking = d.lackingPlaces()
	for _, l := range s.Lacking {
		s.Warnings = append(s.Warnings, fmt.Sprintf("place %s, of policy %s, does not hold: %s; vmcryptfs policy list shows all, policy rebind takes up what was moved", l.Path, l.Policy, l.Why))
	}
	slices.Sort(s.Warnings)
	return s, nil
}

// mostLacking bounds the places of a status that do not hold.
const mostLacking = 100

// lackingPlaces are places that do not hold. A BACKING that does not answer says nothing.
func (d *daemon) lackingPlaces() []policy.Lack {
	if len(d.store.Settings().Places) == 0 {
		return nil
	}
	list, _ := d.probes.places.ask(countTime, func() ([]policy.Lack, error) { // an error is BACKING's, which other checks tell
		list, _, err := policy.Lacking(d.store, mostLacking)
		return list, err
	})
	return list
}

// glance is the status with the kept census. Where patience allows, the census is renewed first.
func (d *daemon) glance(ctx context.Context, patience time.Duration) admin.Status {
	s := admin.Status{
		State:       admin.StateServing,
		Mount:       d.Mount(),
		Place:       d.place(ctx),
		Since:       d.since,
		Transport:   d.transportName(),
		Cipher:      cryptoblk.Implementation(),
		Unencrypted: d.config.Unencrypted.String(),
		ReadOnly:    d.fs.ReadOnly(),
		Copy:        d.config.Copy,
		Locked:      d.keys.Cache.Locked(),
		Verified:    d.store.Verified(),
		Dev:         d.keys.dev,
		KEK:         wire.KeyName{Provider: d.store.Settings().Provider, Identifier: d.store.Settings().KEK},
		Providers:   d.providers(),
		Keys:        d.heldKeys(),
		Rekey:       d.rekeyStatus(),
		Moves:       moves.NewStatus(d.moves.List()),
		Adopting:    d.fs.Adopting(),
		FileSystem:  d.fs.Abilities(),
		Protection:  d.protection(),
		IO:          d.fs.Stats(),
		Log:         d.logPath,
	}
	counted := d.fs.Census().Counted(ctx, patience)
	s.Files = admin.Files{Census: counted.Census, Complete: counted.Complete, CountedAt: counted.At}
	s.Warnings = append(d.warnings(), expiryWarnings(s, time.Now())...)
	s.Warnings = append(s.Warnings, hostWarnings(s)...)
	if s.Gone {
		s.Warnings = append(s.Warnings, goneWarning(s))
	}
	if counted.Err != nil {
		s.Warnings = append(s.Warnings, fmt.Sprintf("the files of %s are not all counted: %v", d.config.Backing, counted.Err))
	}
	slices.Sort(s.Warnings)
	return s
}

// transportName is the transport's, empty before the mount.
func (d *daemon) transportName() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.server == nil {
		return ""
	}
	return d.server.Name()
}

func (d *daemon) providers() []admin.Provider {
	list := []admin.Provider{} // in JSON: [], not null
	changes := d.keys.lastChanges()
	for _, p := range d.keys.Cache.Providers() {
		changed := changes[p.Name()]
		of := admin.Provider{Changed: changed.at, Changes: changed.changes, Name: p.Name(), Servers: p.Health(), Certificates: []admin.Certificate{}}
		if p, ok := p.(*kmip.Provider); ok {
			of.Certificates = CertificatesOf(p, time.Now())
		}
		list = append(list, of)
	}
	slices.SortFunc(list, func(a, b admin.Provider) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

func (d *daemon) heldKeys() []admin.Key {
	list := []admin.Key{}
	for _, k := range d.keys.Cache.Held() {
		var ends time.Time
		if p, ok := d.keys.Cache.Provider(k.Provider).(*kmip.Provider); ok {
			ends = p.KeyEnds(k.ID)
		}
		list = append(list, admin.Key{
			Ends:    ends,
			KeyName: wire.KeyName{Provider: k.Provider, Identifier: k.ID},
			State:   k.State,
			Age:     int64(time.Since(k.Since).Seconds()),
			Since:   k.Since,
		})
	}
	return list
}

// warnings gives the warnings for people about keys of the mount, and about files hidden by the
// mount.
func (d *daemon) warnings() []string {
	d.mu.Lock()
	seal := d.seal
	d.mu.Unlock()
	list := []string{}
	if d.below != "" {
		list = append(list, d.below)
	}
	if d.memory != "" {
		list = append(list, d.memory)
	}
	if d.keys.Cache.Locked() {
		list = append(list, "locked: encrypted files do not open; vmcryptfs unlock "+d.config.Mountpoint)
	}
	list = append(list, d.keys.warnings()...)
	switch {
	case seal == nil || errors.Is(seal, keys.ErrLocked):
	case isForged(seal):
		list = append(list, fmt.Sprintf("no file is created, the settings are not to be trusted: %v; restore %s/.vmcryptfs/datastore.toml and mount again", seal, d.config.Backing))
	default:
		list = append(list, fmt.Sprintf("no key, retried by itself: encrypted files do not open and none is created: %v", seal))
	}
	return list
}

// hostWarnings gives the warnings for people about files and the host.
func hostWarnings(s admin.Status) []string {
	var list []string
	for _, k := range s.Keys {
		if k.State == keys.Missing.String() {
			list = append(list, fmt.Sprintf("provider %s has key %s no more, this host may hold the last copy: do not lock, unmount or reboot; give the KMS its key back, or vmcryptfs rekey --new %s", k.Provider, k.Identifier, s.Mountpoint))
		}
	}
	if !cryptoblk.HardwareAES() {
		list = append(list, "this CPU has no AES instructions: encryption is slow")
	}
	switch n := s.Files.Unencrypted; {
	case n > 0 && s.Adopting > 0:
		list = append(list, fmt.Sprintf("%d files lie in clear where their names are encrypted, and are served in places that adopt: vmcryptfs policy apply encrypts them", n))
	case n > 0:
		list = append(list, fmt.Sprintf("%d files lie in clear where their names are encrypted (unencrypted=%s): vmcryptfs status --files lists them", n, s.Unencrypted))
	}
	if n := s.Files.Damaged; n > 0 {
		list = append(list, fmt.Sprintf("%d files are damaged: vmcryptfs status --files lists them, vmcryptfs info FILE says how", n))
	}
	return list
}

// Files walks the datastore and calls each with every file of interest. An error of each ends the
// walk and is the error of Files.
func (d *daemon) Files(ctx context.Context, each func(admin.File) error) (backing.Census, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	census, err := d.fs.Census().Take(ctx, func(path, form, rule string) {
		if ctx.Err() != nil {
			return
		}
		if err := each(admin.File{Path: path, Form: form, Rule: rule, About: rule}); err != nil {
			cancel(err)
		}
	})
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return census, err
}

// Lock wipes the KEKs. DEKs of files in use stay: a guest must not lose a disk.
func (d *daemon) Lock(ctx context.Context) (admin.LockResult, error) {
	peer, _ := admin.PeerOf(ctx)
	d.keys.Cache.Lock()
	d.moves.Halt(becauseLocked)
	open := d.fs.Stats().OpenEncrypted
	d.log.Info("locked", "open_encrypted", open, "uid", peer.UID, "pid", peer.PID)
	return admin.LockResult{OpenFiles: open}, nil
}

// Unlock fetches the current KEK, and verifies the settings unless verified already.
func (d *daemon) Unlock(ctx context.Context) error {
	peer, _ := admin.PeerOf(ctx)
	reading, stop := context.WithTimeout(ctx, firstVerify)
	d.keys.reload(reading, d.log)
	stop()
	d.keys.Cache.Unlock()
	err := d.fetchKey(ctx)
	d.moves.Release(becauseLocked)
	d.log.Info("unlocked", "uid", peer.UID, "pid", peer.PID, "error", err)
	return err
}

// fetchKey fetches the current KEK, and verifies the settings unless verified already.
func (d *daemon) fetchKey(ctx context.Context) error {
	if !d.store.Verified() {
		return d.verify(ctx, 2*firstVerify)
	}
	s := d.store.Settings()
	return d.keys.Cache.Use(ctx, keys.Ref{Provider: s.Provider, ID: s.KEK}, func(*keys.KEK) error { return nil })
}
