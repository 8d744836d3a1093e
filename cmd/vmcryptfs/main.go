// Command vmcryptfs puts an encrypted datastore for virtual machines over an ordinary
// directory: see README.md for a start and docs/operations.md for the contract of its
// options, exit codes and JSON.
//
// A file for each subcommand holds its flags and prints what the packages answer. An
// error ends in main alone, as one line and an exit code (errors.go).
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"
)

func main() {
	p := newProgram()
	os.Exit(p.end(p.run(context.Background(), os.Args)))
}

// end tells err in one line and gives its exit code. What could not be printed is an
// error of every command.
func (p *program) end(err error) int {
	if p.stdout.err != nil && (err == nil || errors.Is(err, errHelped)) {
		err = fmt.Errorf("standard output: %w", p.stdout.err)
	}
	if err != nil && !errors.Is(err, errHelped) {
		fmt.Fprintln(p.stderr, "vmcryptfs: "+sentences(err))
	}
	return exitCode(err)
}

// program is what a subcommand may touch of its surroundings.
type program struct {
	stdin, stderr *os.File
	stdout        *console
}

func newProgram() *program {
	return &program{stdin: os.Stdin, stdout: &console{file: os.Stdout}, stderr: os.Stderr}
}

// console is a file that keeps the first error of a Write, so that what prints for
// people need not look at each line's.
type console struct {
	file *os.File
	err  error
}

func (c *console) Write(b []byte) (int, error) {
	n, err := c.file.Write(b)
	if c.err == nil {
		c.err = err
	}
	return n, err
}

// command is one subcommand.
type command struct {
	name  string
	usage string // arguments
	about string // one line of help
	run   func(p *program, ctx context.Context, args []string) error
}

// commands are all subcommands, in the order of the help.
func commands() []command {
	return []command{
		{"init", "BACKING", "make a directory a datastore", (*program).init},
		{"mount", "BACKING MOUNTPOINT", "serve a datastore", (*program).mount},
		{"umount", "MOUNTPOINT", "end a mount", (*program).umount},
		{"status", "[MOUNTPOINT]", "keys, key servers, files and I/O of a mount, or of all", (*program).status},
		{"info", "FILE…", "a file's class, ids, size and holes; needs no key", (*program).info},
		{"classify", "NAME…", "which rule decides over a name, and why", (*program).classify},
		{"lock", "MOUNTPOINT", "wipe the keys from memory", (*program).lock},
		{"unlock", "MOUNTPOINT", "fetch the keys again", (*program).unlock},
		{"settings", "show|edit|set BACKING", "the datastore's rules, sealed", (*program).settings},
		{"forget", "[BACKING|ID…]", "what this host remembers of datastores: list it, or forget some", (*program).forget},
		{"export", "FILE -o OUT", "decrypt one backing file with no mount", (*program).export},
		{"rekey", "PATH…", "a new key for files or trees, in use or not", (*program).rekey},
		{"kms", "check|list", "can this host reach and use its keys, and which are there?", (*program).kms},
		{"devkms", "serve --dir DIR", "the development KMS on its own", (*program).devkms},
		{"version", "", "version and cipher implementation", (*program).version},
	}
}

// run finds the subcommand. mount(8) calls us as mount.fuse.vmcryptfs, and mount.fuse3
// with no subcommand: both give BACKING and MOUNTPOINT first.
func (p *program) run(ctx context.Context, argv []string) error {
	args := argv[1:]
	if strings.HasPrefix(filepath.Base(argv[0]), "mount.") {
		return p.mount8(ctx, args)
	}
	if len(args) == 0 {
		p.help(p.stderr)
		return usagef("no command given")
	}
	name, args := args[0], args[1:]
	switch name {
	case "help", "-h", "--help":
		p.help(p.stdout)
		return nil
	case "--version":
		name = "version"
	}
	for _, c := range commands() {
		if c.name == name {
			return c.run(p, ctx, args)
		}
	}
	if strings.Contains(name, "/") && len(args) > 0 {
		return p.mount8(ctx, argv[1:])
	}
	return usagef("unknown command %q: vmcryptfs help lists them", name)
}

// help prints the commands.
func (p *program) help(w io.Writer) {
	fmt.Fprint(w, "An encrypted datastore for virtual machines over an ordinary directory.\n\nUsage:\n")
	for _, c := range commands() {
		fmt.Fprintf(w, "  vmcryptfs %-30s %s\n", strings.TrimSpace(c.name+" "+c.usage), c.about)
	}
	fmt.Fprint(w, "\nvmcryptfs COMMAND --help shows a command's options.\n")
}

// flags starts a subcommand's flag set.
func (p *program) flags(name string) *pflag.FlagSet {
	f := pflag.NewFlagSet(name, pflag.ContinueOnError)
	f.SortFlags = false
	f.SetOutput(io.Discard) // errors come back from Parse, once
	return f
}

// errHelped ends a command that has printed its help.
var errHelped = errors.New("help was asked for")

// parse gives the arguments left after the flags: at least least, at most most (-1: any).
func (p *program) parse(f *pflag.FlagSet, args []string, usage string, least, most int) ([]string, error) {
	f.Usage = func() {}
	err := f.Parse(args)
	if errors.Is(err, pflag.ErrHelp) {
		fmt.Fprintf(p.stdout, "Usage: vmcryptfs %s %s\n\n%s", f.Name(), usage, f.FlagUsages())
		return nil, errHelped
	}
	if err != nil {
		return nil, usagef("%s: %w", f.Name(), err)
	}
	if n := f.NArg(); n < least || most >= 0 && n > most {
		return nil, usagef("%s: %d arguments given; usage: vmcryptfs %s %s", f.Name(), n, f.Name(), usage)
	}
	return f.Args(), nil
}
