// Package libvirt uses a mount as users of libvirt do: a storage pool, volumes, and domains whose
// QEMU runs as libvirt-qemu, with snapshots, block jobs, saved and dumped memory. After each step
// BACKING must hold the expected files in the expected form.
//
// The domains need no operating system: a domain runs a boot sector that writes itself to the
// domain's disk, numbered, again and again, and so reveals data lost by a block job.
package libvirt
