// Command vmcryptfs puts an encrypted datastore for virtual machines over an ordinary directory.
// README.md is the start; docs/operations.md is the contract of options, exit codes and JSON.
//
// Each subcommand has a file with flags and output. Errors end in main alone, as one line and an
// exit code (errors.go).
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"vmcryptfs/advice"

	"github.com/spf13/pflag"
)

func main() {
	p := newProgram()
	os.Exit(p.end(p.run(context.Background(), os.Args)))
}

// end prints err in one line and gives the exit code. --verbose adds a line with the causes of
// err. For every command, a failed write of output is an error.
func (p *program) end(err error) int {
	if p.stdout.err != nil && (err == nil || errors.Is(err, errHelped)) {
		err = fmt.Errorf("standard output: %w", p.stdout.err)
	}
	if err != nil && !errors.Is(err, errHelped) {
		s := say(err)
		fmt.Fprintln(p.stderr, "vmcryptfs: "+s.String())
		if p.verbose {
			fmt.Fprintln(p.stderr, "vmcryptfs: in full: "+s.chain)
		}
	}
	return exitCode(err)
}

// program is the part of the surroundings open to a subcommand.
type program struct {
	stdin, stderr *os.File
	stdout        *console
	verbose       bool
}

func newProgram() *program {
	return &program{stdin: os.Stdin, stdout: &console{file: os.Stdout}, stderr: os.Stderr}
}

// console is a file that keeps the first error of a Write, so printing code need not check each
// line.
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
		{"policy", "list|set|check|apply|…", "which directories encrypt new files, and under which keys", (*program).policy},
		{"scan", "BACKING", "what lies in a datastore that should not: cleartext, leftovers, lost keys", (*program).scan},
		{"forget", "[BACKING|ID…]", "what this host remembers of datastores: list it, or forget some", (*program).forget},
		{"export", "FILE -o OUT", "decrypt one backing file with no mount", (*program).export},
		{"rekey", "PATH…", "a new key for files or trees, in use or not", (*program).rekey},
		{"moves", "list|pause|resume|…", "moves of files to another form or key, under way", (*program).moves},
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
	for len(args) > 0 && (args[0] == "--verbose" || args[0] == "-v") { // else one of the command's
		p.verbose, args = true, args[1:]
	}
	if len(args) == 0 {
		p.help(p.stderr)
		return advice.New(advice.Usagef("no command given"), "name one of these")
	}
	name, args := args[0], args[1:]
	switch name {
	case "help", "-h", "--help":
		return p.helpOf(ctx, args)
	case "--version":
		name = "version"
	}
	for _, c := range commands() {
		if c.name == name {
			return c.run(p, ctx, args)
		}
	}
	if strings.Contains(name, "/") && len(args) > 0 {
		return p.mount8(ctx, append([]string{name}, args...))
	}
	return unknownCommand(name)
}

// unknownCommand gives the error for an unknown command, with the most similar command.
func unknownCommand(name string) error {
	var names []string
	for _, c := range commands() {
		names = append(names, c.name)
	}
	return advice.New(advice.Usagef("unknown command %q", name), didYouMean(closest(name, names), "vmcryptfs help lists the commands"))
}

// flags starts a subcommand's flag set.
func (p *program) flags(name string) *pflag.FlagSet {
	f := pflag.NewFlagSet(name, pflag.ContinueOnError)
	f.SortFlags = false
	f.SetOutput(io.Discard) // errors come back from Parse, once
	f.BoolVarP(&p.verbose, "verbose", "v", p.verbose, "of an error, tell all that led to it")
	return f
}

// errHelped ends a command after printing help.
var errHelped = errors.New("help was asked for")

// parse gives the arguments left after the flags: at least least, at most most (-1: any).
func (p *program) parse(f *pflag.FlagSet, args []string, usage string, least, most int) ([]string, error) {
	f.Usage = func() {}
	err := f.Parse(args)
	if errors.Is(err, pflag.ErrHelp) {
		p.printUsage(f.Name(), usage, f.FlagUsagesWrapped(columns))
		return nil, errHelped
	}
	if err != nil {
		return nil, badFlag(f, err)
	}
	if n := f.NArg(); n < least || most >= 0 && n > most {
		return nil, advice.New(advice.Usagef("%s: %d arguments given", f.Name(), n), "usage: vmcryptfs "+f.Name()+" "+usage)
	}
	return f.Args(), nil
}

// badFlag gives the error for a wrong flag, with the most similar flag.
func badFlag(f *pflag.FlagSet, err error) error {
	var names []string
	f.VisitAll(func(flag *pflag.Flag) {
		if !flag.Hidden {
			names = append(names, "--"+flag.Name)
		}
	})
	meant := ""
	if unknown, ok := errors.AsType[*pflag.NotExistError](err); ok && len(unknown.GetSpecifiedName()) > 1 {
		meant = closest("--"+unknown.GetSpecifiedName(), names)
	}
	help := "vmcryptfs help " + f.Name() + " lists the options"
	return advice.New(advice.Usagef("%s: %w", f.Name(), err), didYouMean(meant, help))
}
