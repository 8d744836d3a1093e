package main

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/fs/rekey"
	"vmcryptfs/fs/wire"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// besideKey names the key in the updated header.
var besideKey = wire.KeyName{Provider: "corp", Identifier: "k1"}

// worst shows both slots torn at once to readers beside an update. A slow reader sees the same
// between the two slots, when one update follows another.
type worst struct{ *cryptfile.OSFile }

func (w worst) WriteAt(p []byte, off int64, d cryptfile.Durability) (int, error) {
	if off == layout.SlotBOffset { // the first write of an update
		for _, slot := range []layout.Slot{layout.SlotA, layout.SlotB} {
			if _, err := w.OSFile.WriteAt(p[:len(p)/2], slot.Offset(), cryptfile.Volatile); err != nil {
				return 0, err
			}
		}
		time.Sleep(2 * time.Millisecond)
	}
	return w.OSFile.WriteAt(p, off, d)
}

// update updates the header once.
func (w worst) update(ctx context.Context, dek *keys.DEK) error {
	unlock, err := w.LockHeader(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	slots, err := cryptfile.ReadHeader(w)
	if err != nil {
		return err
	}
	h := *slots.Header
	return cryptfile.UpdateHeader(w, slots, &h, dek)
}

// keepUpdating makes the encrypted file at path, and updates the header until the test ends.
// updates is the number of updates.
func keepUpdating(t *testing.T, path string) (updates func() int) {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	w := worst{cryptfile.NewOSFile(fd)}
	dek, err := keys.NewDEK()
	if err != nil {
		t.Fatal(err)
	}
	h := &layout.Header{Generation: 1, FileID: layout.FileID{1}}
	h.Lockers[0] = layout.Locker{Wrap: layout.WrapKMIP, Provider: besideKey.Provider, KeyID: besideKey.Identifier}
	dek.Seal(h)
	if err := cryptfile.Format(w.OSFile, h); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex // guards n
	n := 0
	ctx, cancel := context.WithCancel(context.Background())
	var updating sync.WaitGroup
	updating.Go(func() {
		for ctx.Err() == nil {
			if err := w.update(ctx, dek); err != nil && ctx.Err() == nil {
				t.Errorf("update: %v", err)
				return
			}
			mu.Lock()
			n++
			mu.Unlock()
			time.Sleep(5 * time.Millisecond) // a rekey is at another file
		}
	})
	t.Cleanup(func() { cancel(); updating.Wait(); dek.Wipe(); w.Close() })
	return func() int { mu.Lock(); defer mu.Unlock(); return n }
}

// TestHeaderBesideUpdates: info, export, the census and the inventory of keys read a header under
// constant updates, and find no damage.
func TestHeaderBesideUpdates(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "disk.img")
	updates := keepUpdating(t, path)
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(root)
	var reading sync.WaitGroup
	for name, read := range map[string]func(context.Context) error{
		"info":      func(ctx context.Context) error { return infoFindsNothing(ctx, path) },
		"export":    func(ctx context.Context) error { return exportReads(ctx, path) },
		"census":    func(ctx context.Context) error { return censusFindsNothing(ctx, root) },
		"inventory": func(ctx context.Context) error { return inventoryIsWhole(ctx, root) },
	} {
		reading.Go(func() {
			for updates() < 20 && !t.Failed() {
				if err := read(t.Context()); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
	reading.Wait()
}

func infoFindsNothing(ctx context.Context, path string) error {
	i, err := readInfo(ctx, path)
	if err != nil {
		return err
	}
	if h := i.Header; i.Form != "encrypted" || h.SlotA != "ok" || h.SlotB != "ok" || h.Differ {
		return fmt.Errorf("%s, with the header %+v", i.Form, h)
	}
	return nil
}

func exportReads(ctx context.Context, path string) error {
	b, _, err := openBacking(path)
	if err != nil {
		return err
	}
	defer b.Close()
	_, err = findHeader(ctx, b)
	return err
}

func censusFindsNothing(ctx context.Context, root int) error {
	verdict := func(_ int, at string) layout.Verdict { return layout.Classify(at) }
	c, err := backing.NewCounter(root, verdict, nil).Take(ctx, nil)
	if err == nil && (c.Encrypted != 1 || c.Damaged+c.Other+c.Unsynced != 0) {
		err = fmt.Errorf("counted %+v", c)
	}
	return err
}

func inventoryIsWhole(ctx context.Context, root int) error {
	v, err := rekey.TakeInventory(ctx, root, false)
	if err != nil {
		return err
	}
	if use := v.Uses[besideKey]; len(v.Unread) > 0 || use == nil || use.Files != 1 {
		return fmt.Errorf("a use of %+v, and unread are %v", use, v.Unread)
	}
	return nil
}
