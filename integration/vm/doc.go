// Package vm runs virtual machines from disks on a mount: Debian's own kernel under QEMU, by KVM
// where KVM works and else emulated, with the disk formats, cache modes and operations of a
// hypervisor. The guests make file systems, write with checksums, trim, are paused, saved, moved
// and resumed, and read everything again.
//
// A guest boots from the files made by scripts/guest and is driven over its serial console, a
// shell command at a time; QEMU is driven over QMP.
package vm
