// Package integration proves the program from outside. The tests build vmcryptfs, run the program
// as a user would, mount for real, work on the mount with foreign tools, and read BACKING with a
// decryptor of their own (decrypt_test.go), which shares no code with the packages under test.
//
// The tests need root and /dev/fuse and fail without them. All processes and mounts of the tests
// live in namespaces of their own (namespace_test.go), so nothing outlives the tests, however
// they end.
package integration
