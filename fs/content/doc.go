// Package content is an open file of BACKING as its readers and writers see it.
//
// A Content is the bytes: encrypted or in clear, with room for a content in two backing files. A
// File is a Content, its form, and its holders. A holder has the file open to read or to write
// (Intent). The file of BACKING itself stays inside the package: callers ask the File about a lost
// write, the page cache, access times or an exchange of the descriptor.
//
// The package promises: a file in clear never begins with the magic of an encrypted one. The
// package knows no name, class, key server or node, and no FUSE. The caller decides who may open a
// file, and has the lock that guards File's fields.
package content
