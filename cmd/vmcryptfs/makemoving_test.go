package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/fs/daemon"
	"vmcryptfs/fs/move"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// makeMoving is a program for the scripts: makemoving KIND FILE LIKE HOW begins to move FILE of
// BACKING, and prints the move's id. KIND is encrypt, decrypt or deep; the new header, if there is
// one, has the key of the encrypted file LIKE. HOW is how far the move goes: so many bytes of data,
// in whole MiB; "all"; or "back", all is in the source again.
func makeMoving() {
	err := errors.New("usage: makemoving KIND FILE LIKE HOW")
	if len(os.Args) == 5 {
		m := moved{name: os.Args[2], id: keys.NewFileID()}
		err = withKeys(context.Background(), keyFlags{daemon.KeyConfig{Dev: true}}, func(source *daemon.KeySource) error {
			return m.make(source, os.Args[1], os.Args[3], os.Args[4])
		})
		fmt.Println(m.id)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "makemoving:", err)
		os.Exit(1)
	}
}

// moved is a file that is made to move, and the move.Dir for that.
type moved struct {
	name string
	id   layout.FileID
}

func (m *moved) make(source *daemon.KeySource, kind, like, how string) error {
	k := map[string]layout.MoveKind{"encrypt": layout.MoveEncrypt, "decrypt": layout.MoveDecrypt, "deep": layout.MoveDeep}[kind]
	p := move.Plan{ID: m.id, Kind: k, Dir: m, Prepare: func(cryptfile.Backing) error { return nil }}
	b, h, dek, err := openHalf(source, m.name, k != layout.MoveEncrypt)
	if err != nil {
		return err
	}
	var pair *move.Pair
	if k == layout.MoveDecrypt {
		pair, err = m.beginClear(p, move.Half{Backing: b, DEK: dek}, h)
	} else {
		if p.Header, p.DEK, err = newHeader(source, like); err != nil {
			return err
		}
		s := move.Half{Backing: b, DEK: dek}
		if dek != nil {
			s.ID = h.FileID
		}
		pair, err = move.BeginEncrypted(p, s)
	}
	if err != nil {
		return err
	}
	return errors.Join(advance(pair, how), pair.Close())
}

func (m *moved) beginClear(p move.Plan, s move.Half, h layout.Header) (*move.Pair, error) {
	if err := move.RecordAll(s.Backing, s.DEK, m.id, h.FileID); err != nil {
		return nil, err
	}
	if err := cryptfile.Mark(s.Backing, s.DEK, m.id); err != nil {
		return nil, err
	}
	h.Mark = m.id
	found, err := move.Find(s.Backing, &h, s.DEK)
	if err != nil {
		return nil, err
	}
	return move.BeginClear(p, s, found)
}

// openHalf opens a file for writing; an encrypted one with its header and DEK.
func openHalf(source *daemon.KeySource, name string, encrypted bool) (b *cryptfile.OSFile, h layout.Header, dek *keys.DEK, err error) {
	fd, err := unix.Open(name, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, h, nil, err
	}
	b = cryptfile.NewOSFile(fd)
	if !encrypted {
		return b, h, nil, nil
	}
	slots, err := cryptfile.ReadHeader(b)
	if err != nil {
		return nil, h, nil, err
	}
	dek, err = source.Cache.Unwrap(context.Background(), slots.Header)
	return b, *slots.Header, dek, err
}

// newHeader is a header of a new file under the key of the file like.
func newHeader(source *daemon.KeySource, like string) (h layout.Header, dek *keys.DEK, err error) {
	b, old, unused, err := openHalf(source, like, true)
	if err != nil {
		return h, nil, err
	}
	defer b.Close()
	defer unused.Wipe()
	if dek, err = keys.NewDEK(); err != nil {
		return h, nil, err
	}
	h = layout.Header{Generation: 1, FileID: keys.NewFileID()}
	l := &old.Lockers[0]
	err = source.Cache.Use(context.Background(), keys.Ref{Provider: l.Provider, ID: l.KeyID, Check: &l.KCV}, func(kek *keys.KEK) error {
		return kek.Wrap(&h, 0, dek)
	})
	return h, dek, err
}

// errFarEnough ends a step in the middle of its zone.
var errFarEnough = errors.New("far enough")

// advance takes the move as far as how says.
func advance(p *move.Pair, how string) error {
	ctx := context.Background()
	if how == "back" {
		return goBack(ctx, p)
	}
	limit := int64(1) << 62
	if how != "all" {
		var err error
		if limit, err = strconv.ParseInt(how, 10, 64); err != nil {
			return err
		}
	}
	var done int64
	for limit > 0 {
		ended, err := p.Step(ctx, func(_ context.Context, copied int64) error {
			if done += copied; done >= limit {
				return errFarEnough
			}
			return nil
		})
		if errors.Is(err, errFarEnough) || ended {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// goBack takes the move to where all is in the source.
func goBack(ctx context.Context, p *move.Pair) error {
	if err := p.Turn(true); err != nil {
		return err
	}
	for {
		done, err := p.Back(ctx, func(context.Context, int64) error { return nil })
		if err != nil {
			return err
		}
		if done {
			return p.Return()
		}
	}
}
