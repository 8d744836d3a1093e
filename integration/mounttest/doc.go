// Package mounttest is shared by the tests of the whole program: build vmcryptfs, run the program
// as a user would, make and mount datastores, and take everything down.
//
// The package needs root and /dev/fuse. A package of tests passes its tests to Main, which runs
// the tests in namespaces of their own: no process or mount outlives the tests.
package mounttest
