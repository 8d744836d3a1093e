package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"vmcryptfs/advice"
	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/fs/daemon"
	"vmcryptfs/fs/move"
	"vmcryptfs/layout"
)

// exportChunk is how much is decrypted at once, in bytes.
const exportChunk = 1 << 20

// errNotEncrypted: there is nothing to decrypt.
var errNotEncrypted error = advice.New(errors.New("it is not encrypted"), "copy it as it is")

// export decrypts one backing file with no mount. A header whose slot A was wiped is
// read from slot B.
func (p *program) export(ctx context.Context, args []string) error {
	var k keyFlags
	f := p.flags("export")
	out := f.StringP("output", "o", "", "where the plaintext goes; - is standard output")
	force := f.Bool("force", false, "overwrite OUT")
	k.add(f)
	args, err := p.parse(f, args, "FILE -o OUT [--force]", 1, 1)
	if err != nil {
		return err
	}
	if *out == "" {
		return advice.Usagef("export: no OUT is given; say where the plaintext goes: -o OUT")
	}
	// An interrupted export removes the unfinished file.
	ctx, stop := interruptible(ctx)
	defer stop()
	at, _, err := behind(args[0])
	if err != nil {
		return fmt.Errorf("export %s: %w", args[0], err)
	}
	file, err := openExport(ctx, args[0], at, k)
	if err != nil {
		return interrupted(ctx, err)
	}
	defer file.Close()
	if err := p.writeOut(ctx, file, at, *out, *force); err != nil {
		return fmt.Errorf("export %s to %s: %w", args[0], *out, err)
	}
	return nil
}

// openExport opens the encrypted backing file at, which the user named as path, with the KEK of
// one of the file's lockers.
func openExport(ctx context.Context, path, at string, k keyFlags) (*exported, error) {
	b, _, err := openBacking(at)
	if at != path && isAny(err, unix.EACCES, unix.EPERM) {
		err = notReadable(path, at, err)
	}
	if err != nil {
		return nil, fmt.Errorf("export %s: %w", path, err)
	}
	file, err := openContent(ctx, at, b, k)
	if err != nil {
		return nil, fmt.Errorf("export %s: %w", path, err)
	}
	return file, nil
}

// openContent opens the content of the backing file b with the path at, and takes over b, also on
// error.
func openContent(ctx context.Context, at string, b *cryptfile.OSFile, k keyFlags) (file *exported, err error) {
	err = refuseCompanion(ctx, at, b)
	var slots layout.Slots
	if err == nil {
		slots, err = findHeader(ctx, b)
	}
	if err != nil {
		b.Close()
		return nil, err
	}
	opened := false
	err = withKeys(ctx, k, func(source *daemon.KeySource) error {
		dek, err := source.Cache.Unwrap(ctx, slots.Header)
		if err != nil {
			return source.Explain(err)
		}
		opened = true // both take over b
		if slots.Header.Marked() {
			file, err = openMoving(ctx, source, at, move.Half{Backing: b, DEK: dek, ID: slots.Header.FileID}, slots.Header)
		} else {
			file, err = openWhole(b, dek)
		}
		return err
	})
	if !opened {
		b.Close()
	}
	return file, err
}

// findHeader reads the header of b. A slot B left over from a wiped header counts too.
func findHeader(ctx context.Context, b *cryptfile.OSFile) (layout.Slots, error) {
	found, err := backing.Examine(ctx, b, layout.Verdict{})
	switch {
	case errors.Is(err, backing.ErrHidden):
		return found.Slots, nil
	case err != nil:
		return found.Slots, err
	case found.Slots.Header == nil:
		return found.Slots, errNotEncrypted
	default:
		return found.Slots, nil
	}
}

// writeOut writes the plaintext of file to out, a file, device or pipe, or to standard output.
func (p *program) writeOut(ctx context.Context, file *exported, from, out string, force bool) error {
	progress := p.progress("export", file.size)
	defer progress.end()
	if out == "-" {
		return interrupted(ctx, writeStream(ctx, file, p.stdout, progress))
	}
	device, err := openDevice(out)
	if err != nil {
		return err
	}
	if device != nil {
		defer device.Close()
		return interrupted(ctx, writeDevice(ctx, file, device, progress))
	}
	to, err := newOutput(from, out, force)
	if err != nil {
		return err
	}
	defer to.drop()
	if err := writeSparse(ctx, file, to.File, progress); err != nil {
		return interrupted(ctx, err) // drop then removes the unfinished file
	}
	return to.keep(force)
}

// writeDevice writes to a device or a pipe, as a stream. A disk may hold the data in a cache;
// writeDevice waits until the data is on the disk.
func writeDevice(ctx context.Context, file *exported, to *os.File, progress *progress) error {
	if err := writeStream(ctx, file, to, progress); err != nil {
		return err
	}
	info, err := to.Stat()
	if err != nil {
		return err
	}
	if info.Mode()&(os.ModeDevice|os.ModeCharDevice) == os.ModeDevice {
		return to.Sync()
	}
	return nil
}

// writeStream writes every byte.
func writeStream(ctx context.Context, file *exported, to io.Writer, progress *progress) error {
	err := copyRange(ctx, file, 0, file.size, func(p []byte, off int64) error {
		progress.at(off)
		_, err := to.Write(p)
		return err
	})
	if err != nil {
		return err
	}
	return file.unchanged()
}

// writeSparse leaves out holes.
func writeSparse(ctx context.Context, file *exported, to *os.File, progress *progress) error {
	size := file.size
	if err := to.Truncate(size); err != nil {
		return err
	}
	for at := int64(0); at < size; {
		data, err := file.Seek(at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break
		}
		if err != nil {
			return err
		}
		if at, err = file.Seek(data, unix.SEEK_HOLE); err != nil {
			return err
		}
		err = copyRange(ctx, file, data, at, func(p []byte, off int64) error {
			progress.at(off)
			_, err := to.WriteAt(p, off)
			return err
		})
		if err != nil {
			return err
		}
	}
	return file.unchanged()
}

// copyRange reads [from, to) in chunks.
func copyRange(ctx context.Context, file *exported, from, to int64, write func(p []byte, off int64) error) error {
	chunk := make([]byte, exportChunk)
	for from < to {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := file.ReadAt(chunk[:min(to-from, exportChunk)], from)
		if err == nil && n == 0 {
			err = fmt.Errorf("%w: it ends at %d, before %d", layout.ErrDamaged, from, to)
		}
		if err != nil {
			return cmp.Or(file.unchanged(), err)
		}
		if err := write(chunk[:n], from); err != nil {
			return err
		}
		from += int64(n)
	}
	return nil
}
