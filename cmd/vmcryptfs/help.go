package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// columns is how wide help is, at most.
const columns = 80

// wrap breaks a text into lines at spaces. A word longer than width stays whole.
func wrap(text string, width int) (lines []string) {
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && utf8.RuneCountInString(line+" "+word) > width {
			lines, line = append(lines, line), ""
		}
		line = strings.TrimPrefix(line+" "+word, " ")
	}
	return append(lines, line)
}

// help prints the commands.
func (p *program) help(w io.Writer) {
	fmt.Fprint(w, "An encrypted datastore for virtual machines over an ordinary directory.\n\nUsage:\n")
	for _, c := range commands() {
		const indent = 43
		about := strings.Join(wrap(c.about, columns-indent), "\n"+strings.Repeat(" ", indent))
		fmt.Fprintf(w, "  vmcryptfs %-30s %s\n", strings.TrimSpace(c.name+" "+c.usage), about)
	}
	fmt.Fprint(w, "\nvmcryptfs help COMMAND shows what a command does, an example and its options.\n")
}

// helpOf is vmcryptfs help [COMMAND…].
func (p *program) helpOf(ctx context.Context, words []string) error {
	if len(words) == 0 {
		p.help(p.stdout)
		return nil
	}
	for _, c := range commands() {
		if c.name == words[0] {
			return c.run(p, ctx, append(words[1:], "--help"))
		}
	}
	return unknownCommand(words[0])
}

// manual is the help text of a command besides usage and options.
type manual struct{ about, example string }

// manualOf gives the manual of a command; name is the words before the arguments.
func manualOf(name string) manual {
	switch name {
	case "init":
		return manual{"Makes BACKING a datastore under a key that the KMS makes, or has. Files that are there are served as they are, until policy apply has encrypted them.",
			"vmcryptfs init /srv/datastore1"}
	case "mount":
		return manual{"Serves a datastore: what is written to MOUNTPOINT lies encrypted in BACKING, where a virtual machine's data is concerned.",
			"vmcryptfs mount --protect /srv/datastore1 /vm/datastore1"}
	case "umount":
		return manual{"Ends a mount and waits for its daemon. If something uses it, nothing is changed, and who that is is told.",
			"vmcryptfs umount /vm/datastore1"}
	case "status":
		return manual{"Shows how a mount and its keys are; of all mounts without MOUNTPOINT.",
			"vmcryptfs status /vm/datastore1 --json"}
	case "info":
		return manual{"Tells what a file is in BACKING, by its path there or through a mount. It needs no key.",
			"vmcryptfs info /vm/datastore1/web01/web01-flat.vmdk"}
	case "classify":
		return manual{"Tells if a file of that name is encrypted, and which rule says so; of a path into a datastore also which place decides. The file need not exist.",
			"vmcryptfs classify web01-flat.vmdk vmware.log"}
	case "lock":
		return manual{"Wipes the keys from memory: from then on no encrypted file opens. Those that are open go on.",
			"vmcryptfs lock /vm/datastore1"}
	case "unlock":
		return manual{"Fetches the keys again after a lock, or tells why that cannot be.",
			"vmcryptfs unlock /vm/datastore1"}
	case "settings":
		return manual{"Shows or changes the datastore's rules: which names are encrypted and which lie in clear.",
			"vmcryptfs settings edit /srv/datastore1"}
	case "policy":
		return manual{"Shows or changes what new files of a directory get: encrypted or not, and under which key. Files that are there stay as they are.",
			"vmcryptfs policy set /srv/datastore1/web01 gold"}
	case "policy list":
		return manual{"Lists the policies, which directories have them, and which of these do not hold, and why.",
			"vmcryptfs policy list /srv/datastore1"}
	case "policy define":
		return manual{"Makes a policy, or gives one another meaning, with all directories that have it.",
			"vmcryptfs policy define /srv/datastore1 gold --encrypt --kek vm"}
	case "policy remove":
		return manual{"Takes away a policy that no directory has.",
			"vmcryptfs policy remove /srv/datastore1 gold"}
	case "policy set":
		return manual{"Gives new files of a directory a policy, or says of one disk if it is encrypted. Paths are in BACKING or in the mount.",
			"vmcryptfs policy set /vm/datastore1/web01 gold"}
	case "policy rebind":
		return manual{"Takes up a directory with a policy that was renamed or restored in BACKING.",
			"vmcryptfs policy rebind /srv/datastore1/web01-restored"}
	case "scan":
		return manual{"Tells what lies in BACKING that should not: cleartext where the rules say encrypted, leftovers, files that no key opens, places that do not hold. It changes nothing, and needs no mount.",
			"vmcryptfs scan /srv/datastore1"}
	case "forget":
		return manual{"Lists what this host remembers of datastores, or forgets those that are gone.",
			"vmcryptfs forget /srv/datastore1"}
	case "export":
		return manual{"Decrypts one file of BACKING with no mount. FILE may be a path through a mount.",
			"vmcryptfs export /srv/datastore1/web01/web01-flat.vmdk -o web01.img"}
	case "rekey":
		return manual{"Puts files under another key, in use or not; their data is not touched. Interrupted, it tells the command that goes on.",
			"vmcryptfs rekey /vm/datastore1 --new"}
	case "kms":
		return manual{"Asks the key servers how they are, and which keys a datastore has there.",
			"vmcryptfs kms check"}
	case "kms check":
		return manual{"Asks every key server everything that is needed of it, and tells what is missing.",
			"vmcryptfs kms check corp"}
	case "kms list":
		return manual{"Lists a datastore's keys and how many files each opens.",
			"vmcryptfs kms list /srv/datastore1"}
	case "devkms":
		return manual{"Serves the development KMS, whose keys lie on this host in clear: for trying things out.",
			"vmcryptfs devkms serve --dir /tmp/devkms"}
	case "version":
		return manual{"Tells the version and how this host encrypts.",
			"vmcryptfs version --json"}
	}
	return manual{}
}

// printUsage shows the usage, the manual and the options of a command.
func (p *program) printUsage(name, usage, options string) {
	const head = "Usage: "
	line := wrap("vmcryptfs "+name+" "+usage, columns-len(head))
	fmt.Fprintf(p.stdout, "%s%s\n", head, strings.Join(line, "\n"+strings.Repeat(" ", len(head))))
	if m := manualOf(name); m.about != "" {
		fmt.Fprintf(p.stdout, "\n%s\n\nExample: %s\n", strings.Join(wrap(m.about, columns), "\n"), m.example)
	}
	if options != "" {
		fmt.Fprintf(p.stdout, "\n%s", options)
	}
}
