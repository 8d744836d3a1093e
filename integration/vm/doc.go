// Package vm runs virtual machines from disks on a mount: Debian's own kernel under QEMU,
// by KVM where it works and else emulated, with the disk formats, cache modes and
// operations of a hypervisor. Its guests make file systems, write with checksums, trim,
// are paused, saved, moved and resumed, and read everything again.
//
// A guest boots from what scripts/guest makes and is driven over its serial console, a
// shell command at a time; QEMU is driven over QMP.
package vm
