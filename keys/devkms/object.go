package devkms

import (
	"slices"
	"time"

	"github.com/gemalto/kmip-go/kmip14"
	"github.com/gemalto/kmip-go/kmip20"

	"vmcryptfs/keys"
)

// An object is a key in the store without its material. The JSON is the first line of the key's
// file.
type object struct {
	ID        string            `json:"id"` // UUID
	Names     []string          `json:"names,omitempty"`
	Algorithm number            `json:"algorithm"` // a kmip14.CryptographicAlgorithm
	Bits      int32             `json:"bits"`
	Usage     number            `json:"usage"` // a kmip14.CryptographicUsageMask
	State     keys.State        `json:"state"`
	Custom    map[string]string `json:"custom,omitempty"` // "x-…" to text

	Initial     time.Time `json:"initial"`
	Changed     time.Time `json:"changed"`
	Activated   time.Time `json:"activated,omitzero"`
	Deactivated time.Time `json:"deactivated,omitzero"`
	Compromised time.Time `json:"compromised,omitzero"`
	Destroyed   time.Time `json:"destroyed,omitzero"`
}

// A number is a KMIP code in a file. The codec library's types write themselves as names, and
// cannot parse those names.
type number uint32

// clone returns a copy without shared mutable parts.
func (o *object) clone() *object {
	c := *o
	return &c // names and custom attributes do not change after creation
}

// destroyed reports whether only the attributes of the object are left.
func (o *object) destroyed() bool {
	return o.State == keys.Destroyed || o.State == keys.DestroyedCompromised
}

func (o *object) named(name string) bool { return slices.Contains(o.Names, name) }

// A change is a transition of the state model (KMIP 1.4 §3.22). A forbidden transition leaves the
// object unchanged and returns a *failure.
type change func(o *object, now time.Time) error

func activate(o *object, now time.Time) error {
	if o.State != keys.PreActive {
		return wrongState(o, "activated")
	}
	o.State, o.Activated = keys.Active, now
	return nil
}

// revoke is the transition by reason: a compromise is possible at any time, any other reason ends
// an Active key.
func revoke(reason kmip14.RevocationReasonCode) change {
	return func(o *object, now time.Time) error {
		if reason == kmip14.RevocationReasonCodeKeyCompromise || reason == kmip14.RevocationReasonCodeCACompromise {
			o.Compromised = now
			o.State = keys.Compromised
			if !o.Destroyed.IsZero() {
				o.State = keys.DestroyedCompromised
			}
			return nil
		}
		if o.State != keys.Active {
			return wrongState(o, "deactivated")
		}
		o.State, o.Deactivated = keys.Deactivated, now
		return nil
	}
}

func destroy(o *object, now time.Time) error {
	switch o.State {
	case keys.PreActive, keys.Deactivated:
		o.State = keys.Destroyed
	case keys.Compromised:
		o.State = keys.DestroyedCompromised
	default:
		return wrongState(o, "destroyed")
	}
	o.Destroyed = now
	return nil
}

func wrongState(o *object, change string) error {
	reason := kmip20.ResultReasonWrongKeyLifecycleState
	if o.destroyed() {
		reason = kmip20.ResultReasonObjectDestroyed
	}
	return failf(reason, "the key is %s and cannot be %s", o.State, change)
}
