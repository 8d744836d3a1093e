// Package mounttest is what tests of the whole program share: it builds vmcryptfs, runs
// it as a user would, makes datastores, mounts them, and takes everything down.
//
// It needs root and /dev/fuse. A package that uses it hands its tests to Main, which
// gives them namespaces of their own, so that nothing they start or mount outlives them.
package mounttest
