package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"vmcryptfs/advice"
	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/daemon"
	"vmcryptfs/fs/datastore"
	"vmcryptfs/fs/mounts"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
	"vmcryptfs/words"
)

// init makes BACKING a datastore under a new KEK, or under an existing key of the KMS.
func (p *program) init(ctx context.Context, args []string) error {
	var k keyFlags
	f := p.flags("init")
	provider := f.String("provider", "", "the provider of kms.toml (default: the only one)")
	kek := f.String("kek", "", "an existing key's identifier (default: the KMS makes a new one)")
	k.add(f)
	args, err := p.parse(f, args, "BACKING [--provider NAME] [--kek ID]", 1, 1)
	if err != nil {
		return err
	}
	backing, err := filepath.Abs(args[0])
	if err != nil {
		return err
	}
	ctx, stop := interruptible(ctx)
	defer stop()
	// Before a key is made for nothing.
	if err := checkNone(backing); err != nil {
		return err
	}
	return withKeys(ctx, k, func(source *daemon.KeySource) error {
		from, err := source.Choose(*provider)
		if err != nil {
			return err
		}
		return p.makeDatastore(ctx, backing, from, *kek, func(made string) string {
			return goOnInit(args[0], from.Name(), made, k)
		})
	})
}

// makeDatastore makes backing a datastore of the key kek of a provider, or of a new key, and
// reports the result to people. goOn gives the command for going on with a new key not yet in use.
func (p *program) makeDatastore(ctx context.Context, backing string, from keys.Provider, kek string, goOn func(made string) string) error {
	found, err := p.countExisting(ctx, backing)
	if err != nil {
		return interrupted(ctx, err)
	}
	s, err := daemon.Init(ctx, backing, from, kek, found.files > 0)
	if err != nil && kek == "" && s.KEK != "" { // made, and not used
		return advice.New(interrupted(ctx, err), "to use that key: "+goOn(s.KEK))
	}
	if err != nil {
		return interrupted(ctx, err)
	}
	fmt.Fprintf(p.stdout, "datastore %s in %s\nkey       %s at provider %s\n", s.ID, backing, words.Printable(s.KEK), s.Provider)
	if os.Geteuid() == 0 {
		fmt.Fprintf(p.stdout, "next      vmcryptfs mount --protect %s MOUNTPOINT: nothing can then be written to MOUNTPOINT, in clear, while the mount is not there\n", backing)
	}
	p.printExisting(found)
	return nil
}

// printExisting says what becomes of the files that are there.
func (p *program) printExisting(found existing) {
	if found.files == 0 {
		return
	}
	fmt.Fprintf(p.stdout, "existing  %d of %d files lie in clear where their names are encrypted\n", found.unencrypted, found.files)
	fmt.Fprintln(p.stdout, "place     . has policy encrypt, and adopts: such files, and those that other hands put there, are served until the next step is done")
	fmt.Fprintln(p.stdout, "then      vmcryptfs policy apply MOUNTPOINT: encrypts them, while they are in use, and ends the adoption")
}

// checkNone refuses a directory with a datastore, even a datastore that is damaged, of a newer
// version, mounted or just being made.
func checkNone(backing string) error {
	if at, mounted, err := mounts.Backing(backing); mounted {
		return advice.Usagef("%s lies in a mounted datastore: it is %s; choose a directory outside of it", backing, at)
	} else if err != nil {
		return err
	}
	for _, exclusive := range []bool{false, true} { // one in use exists, rather than is busy
		store, err := datastore.Open(backing, exclusive)
		if err == nil {
			store.Close()
			return fmt.Errorf("%s: %w", backing, datastore.ErrExists)
		}
		if errors.Is(err, os.ErrNotExist) {
			return advice.New(err, "make it: "+words.Command([]string{"mkdir", "-p", backing}))
		}
		if !errors.Is(err, datastore.ErrNone) {
			return err
		}
	}
	return nil
}

// goOnInit gives the command to make backing, as given by the user, a datastore of an already made
// key.
func goOnInit(backing, provider, kek string, k keyFlags) string {
	line := []string{"vmcryptfs", "init", backing, "--provider", provider}
	return words.Command(append(append(line, k.words()...), "--kek", kek))
}

// existing counts the files in a directory before the directory becomes a datastore.
type existing struct {
	files       int64 // regular ones
	unencrypted int64 // in clear and with content, under a name of an encrypted class
}

// countExisting walks root, with progress on a terminal.
func (p *program) countExisting(ctx context.Context, root string) (existing, error) {
	var n existing
	var bytes int64
	progress := p.progress("looking at what is there", 0)
	defer progress.end()
	err := regularFiles(ctx, root, func(dir int, name, _ string) error {
		var st unix.Stat_t
		if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return unlessGone(err)
		}
		n.files++
		bytes += st.Size
		progress.at(bytes)
		class := layout.Classify(name).Class
		if st.Size == 0 || class == layout.Clear {
			return nil
		}
		plain, err := isPlain(dir, name, class)
		if plain {
			n.unencrypted++
		}
		return err
	})
	if err != nil {
		return n, fmt.Errorf("look at existing files: %w", err)
	}
	return n, nil
}

// isPlain reports whether the file name in dir is in clear, and not by right under class.
func isPlain(dir int, name string, class layout.Class) (bool, error) {
	b, err := backing.OpenFound(dir, name)
	if err != nil || b == nil {
		return false, err
	}
	defer b.Close()
	form, err := backing.Judge(b, layout.Verdict{Class: class})
	return form == backing.Plain, err
}

// unlessGone gives err, or nil where err means a missing name.
func unlessGone(err error) error {
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}
