package vm

import (
	"context"
	"testing"

	"vmcryptfs/integration/accel"
)

// accelerator is that of all guests, and why it is not KVM.
var accelerator = accel.ChooseOnce(probe)

// probe is a guest without disks of its own.
func probe() (accel.Guest, error) {
	options, err := guestOptions()
	return accel.Guest{QEMU: "qemu-system-x86_64", Options: options, Says: guestReady}, err
}

// TestProbe: the guest that the accelerator is chosen by runs where KVM has no say.
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
