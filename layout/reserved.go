package layout

import "strings"

// ReservedPrefix begins every name reserved for vmcryptfs.
const ReservedPrefix = ".vmcryptfs"

// Reserved reports whether name, one path element, is reserved for vmcryptfs: hidden through the
// mount, and refused for new files there.
func Reserved(name string) bool { return strings.HasPrefix(name, ReservedPrefix) }
