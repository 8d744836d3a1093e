package layout

import "strings"

// ReservedPrefix begins the names that belong to vmcryptfs.
const ReservedPrefix = ".vmcryptfs"

// Reserved tells if name, one path element, belongs to vmcryptfs: hidden through
// the mount, and not to be created there.
func Reserved(name string) bool { return strings.HasPrefix(name, ReservedPrefix) }
