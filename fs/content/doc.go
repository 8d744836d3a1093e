// Package content is an open file of BACKING as its readers and writers see it.
//
// A Content is the bytes: encrypted or in clear, and with room for one that lies in two backing
// files. A File is a Content, the form it has, and its holders: those who have it open to read or to
// write, and by which kind of descriptor (Intent). Nobody outside sees the file of BACKING itself:
// what concerns a lost write, the page cache, access times or an exchange of the descriptor is asked
// of the File.
//
// The package promises that a file in clear never begins with the magic of an encrypted one. It
// knows no name, class, key server or node, and no FUSE: who may open what is decided by its caller,
// who also has the lock that File's fields are guarded by.
package content
