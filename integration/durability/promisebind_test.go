package durability

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"

	"vmcryptfs/integration/mounttest"
)

// binds turns a file of class inspect into a descriptor and back, so the file changes its form
// under an open descriptor all the time.
type binds struct {
	name    string
	version int
	past    [][]byte // the first one is durable
}

func (b *binds) descriptor(version int) []byte {
	return fmt.Appendf(nil, "# Disk DescriptorFile\nversion=1\nCID=%08x\n%s", version, bytes.Repeat([]byte("# padding\n"), version%90))
}

// disk returns content that is no descriptor from the first line on.
func (b *binds) disk(version int) []byte {
	return bytes.Repeat(fmt.Appendf(nil, "KDMV%08x\x00\x01", version), 20+version%60)
}

func (b *binds) prepare(d *mounttest.Datastore) error {
	b.past = [][]byte{b.descriptor(0)}
	return writeDurably(d.Path(b.name), b.past[0])
}

func (b *binds) work(d *mounttest.Datastore, rng *rand.Rand, answered func() error) error {
	for {
		if err := b.rewrite(d, rng, answered); err != nil {
			return err
		}
	}
}

// rewrite cuts the file to nothing and writes new content with one call.
func (b *binds) rewrite(d *mounttest.Datastore, rng *rand.Rand, answered func() error) error {
	f, err := os.OpenFile(d.Path(b.name), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	b.version++
	next := b.descriptor(b.version)
	if rng.IntN(3) == 0 {
		next = b.disk(b.version)
	}
	b.past = append(b.past, nil)
	if err := f.Truncate(0); err != nil {
		return err
	}
	b.past = append(b.past, next)
	if _, err := f.WriteAt(next, 0); err != nil {
		return err
	}
	if rng.IntN(3) == 0 {
		return errors.Join(f.Close(), answered()) // the file takes its form without a sync
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := answered(); err != nil {
		return err
	}
	b.past = [][]byte{next}
	return nil
}

func (b *binds) check(d *mounttest.Datastore) error {
	if err := (&past{name: b.name, versions: b.past}).check(d); err != nil {
		return err
	}
	if form, err := mounttest.FormOf(d.Below(b.name)); err != nil || form == "clear" && !bytes.HasPrefix(d.Read(b.name), []byte("# Disk DescriptorFile\n")) {
		return broken("%s: %s in BACKING (%v), and no descriptor", b.name, form, err)
	}
	return nil
}

func (b *binds) adopt(d *mounttest.Datastore) error {
	got, err := os.ReadFile(d.Path(b.name))
	b.past = [][]byte{got}
	return err
}
