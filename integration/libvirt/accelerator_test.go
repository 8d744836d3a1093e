package libvirt

import (
	"context"
	"errors"
	"os"
	"os/user"
	"strconv"
	"syscall"
	"testing"

	"vmcryptfs/integration/accel"
	"vmcryptfs/integration/mounttest"
)

// domainTypes are libvirt's words for QEMU's accelerators.
var domainTypes = map[string]string{accel.KVM: "kvm", accel.TCG: "qemu"}

// accelerator returns the accelerator of all domains, and the reason against KVM.
var accelerator = accel.ChooseOnce(probe)

// probe returns the guest of every domain as run by libvirt, with libvirt's user.
func probe() (accel.Guest, error) {
	as, err := qemuCredential()
	if err != nil {
		return accel.Guest{}, err
	}
	const disk = "/run/probe.raw" // tmpfs of the namespace
	err = errors.Join(makeDisk(disk), os.Chown(disk, int(as.Uid), int(as.Gid)))
	return accel.Guest{QEMU: "qemu-system-x86_64", Says: string(wroteOne), User: as, Options: []string{
		"-nodefaults", "-no-user-config", "-display", "none", "-machine", "pc", "-m", "32", "-debugcon", "stdio",
		"-drive", "if=virtio,format=raw,file=" + disk,
	}}, err
}

// TestProbe: the guest that decides about the accelerator runs where KVM has no say.
func TestProbe(t *testing.T) {
	g, err := probe()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), mounttest.Patience)
	defer cancel()
	if err := g.Run(ctx, accel.TCG); err != nil {
		t.Error(err)
	}
}

// qemuCredential is the identity of libvirt's QEMU: a user with the group of the same name, and
// with the user's other groups.
func qemuCredential() (*syscall.Credential, error) {
	u, err := user.Lookup(qemuUser)
	if err != nil {
		return nil, err
	}
	group, err := user.LookupGroup(qemuUser)
	if err != nil {
		return nil, err
	}
	groups, err := u.GroupIds()
	if err != nil {
		return nil, err
	}
	var ids []uint32
	for _, text := range append([]string{u.Uid, group.Gid}, groups...) {
		id, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return nil, err
		}
		ids = append(ids, uint32(id))
	}
	return &syscall.Credential{Uid: ids[0], Gid: ids[1], Groups: ids[2:]}, nil
}
