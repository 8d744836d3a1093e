// Package libvirt uses a mount as users of libvirt do: a storage pool, volumes, and
// domains whose QEMU runs as libvirt-qemu, with snapshots, block jobs, saved and dumped
// memory. After each step BACKING holds what it should, in the form it should have.
//
// The domains need no operating system: they run a boot sector that writes itself to
// their disk, numbered, again and again, and so tell what a block job has lost.
package libvirt
