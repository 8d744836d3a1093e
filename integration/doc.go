// Package integration proves the program from outside: its tests build vmcryptfs, run
// it as a user would, mount for real, work on the mount with tools that nobody here
// wrote, and read BACKING with a decryptor of their own (decrypt_test.go), which shares
// no code with the packages under test.
//
// The tests need root and /dev/fuse and fail without them. Everything they start and
// mount lives in namespaces of their own (namespace_test.go), so that nothing outlives
// them, however they end.
package integration
