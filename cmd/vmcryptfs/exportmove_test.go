package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/fs/move"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func silent() *progress { return newProgress(io.Discard, false, "", 0, time.Now) }

// sameKey is a DEK of its own, as the owner of a file takes over.
func sameKey(t *testing.T, dek *keys.DEK) *keys.DEK {
	t.Helper()
	same, err := keys.NewDEK()
	must(t, err)
	copy(same.Bytes(), dek.Bytes())
	return same
}

func openToWrite(t *testing.T, path string) *cryptfile.OSFile {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	must(t, err)
	return cryptfile.NewOSFile(fd)
}

// begunMove is a file of 3 MiB that has begun to move from clear, and its key.
func begunMove(t *testing.T) (m *moved, dek *keys.DEK, h *layout.Header, running *move.Pair) {
	t.Helper()
	m = &moved{filepath.Join(t.TempDir(), "F"), keys.NewFileID()}
	must(t, os.WriteFile(m.name, bytes.Repeat([]byte("x"), 3<<20), 0o600))
	dek, err := keys.NewDEK()
	must(t, err)
	t.Cleanup(dek.Wipe)
	h = &layout.Header{Generation: 1, FileID: keys.NewFileID(), Mark: m.id}
	p := move.Plan{ID: m.id, Kind: layout.MoveEncrypt, Dir: m, Prepare: func(cryptfile.Backing) error { return nil }, Header: layout.Header{Generation: 1, FileID: h.FileID}, DEK: sameKey(t, dek)}
	running, err = move.BeginEncrypted(p, move.Half{Backing: openToWrite(t, m.name)})
	must(t, err)
	t.Cleanup(func() { running.Close() })
	return m, dek, h, running
}

// TestExportBesideMover: a file that moves on while it is exported is an error, and never zeros for
// what was cut off behind the move.
func TestExportBesideMover(t *testing.T) {
	for name, write := range map[string]func(*exported, *os.File) error{
		"sparse": func(e *exported, to *os.File) error { return writeSparse(context.Background(), e, to, silent()) },
		"stream": func(e *exported, _ *os.File) error { return writeStream(context.Background(), e, io.Discard, silent()) },
	} {
		m, dek, h, running := begunMove(t)
		carrier := move.Half{Backing: openToWrite(t, m.name), DEK: sameKey(t, dek), ID: h.FileID}
		found, err := move.Find(carrier.Backing, h, carrier.DEK)
		must(t, err)
		e, err := openPair(found, carrier, move.Half{Backing: openToWrite(t, m.companion())}, h)
		must(t, err)
		out, err := os.Create(filepath.Join(t.TempDir(), "out"))
		must(t, err)
		if err := write(e, out); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		must(t, advance(running, "1048576"))
		if err := write(e, out); !errors.Is(err, errMovedOn) {
			t.Errorf("%s beside a mover: %v", name, err)
		}
		must(t, errors.Join(e.Close(), out.Close()))
	}
}

// TestExportCutOff: so is a whole file that begins to move, and is cut off.
func TestExportCutOff(t *testing.T) {
	b := openToWrite(t, filepath.Join(t.TempDir(), "F"))
	dek, err := keys.NewDEK()
	must(t, err)
	h := &layout.Header{Generation: 1, FileID: keys.NewFileID()}
	dek.Seal(h)
	must(t, cryptfile.Format(b, h))
	must(t, b.Truncate(layout.DataOffset+8192))
	e, err := openWhole(b, dek)
	must(t, err)
	defer e.Close()
	must(t, writeStream(t.Context(), e, io.Discard, silent()))
	must(t, b.Truncate(layout.DataOffset+4096))
	if err := writeStream(t.Context(), e, io.Discard, silent()); !errors.Is(err, errMovedOn) {
		t.Errorf("error %v, want %v", err, errMovedOn)
	}
}
