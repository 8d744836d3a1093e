package vm

import (
	"context"
	"testing"

	"vmcryptfs/integration/accel"
)

// accelerator returns the accelerator of all guests, and the reason against KVM.
var accelerator = accel.ChooseOnce(probe)

// probe returns a guest without disks of its own.
func probe() (accel.Guest, error) {
	options, err := guestOptions()
	return accel.Guest{QEMU: "qemu-system-x86_64", Options: options, Says: guestReady}, err
}

// TestProbe: the guest that decides about the accelerator runs where KVM has no say.
func TestProbe(t *testing.T) {
	t.Parallel()
	g, err := probe()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := g.Run(ctx, accel.TCG); err != nil {
		t.Error(err)
	}
}
