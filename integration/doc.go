// Package integration proves the program from outside. The tests build vmcryptfs, run the program
// as a user would, mount for real, work on the mount with foreign tools, and read BACKING with an
// independent decryptor (decrypt_test.go), without code in common with the packages under test.
//
// The tests need root and /dev/fuse and fail without them. All processes and mounts of the tests
// live in separate namespaces (namespace_test.go), so nothing outlives the tests, however the
// tests end.
package integration
