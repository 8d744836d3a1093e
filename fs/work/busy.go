package work

import (
	"errors"
	"fmt"
)

// ErrBusy says that another work of the datastore is under way. errors.Is finds ErrBusy in a
// BusyError.
var ErrBusy = errors.New("another work of this datastore is under way")

// BusyError refuses a work while another one is under way.
type BusyError struct{ Kind string } // of the work under way: "rekey"

// Error names the kind of the work under way.
func (e *BusyError) Error() string {
	return fmt.Sprintf("another %s of this datastore is under way", e.Kind)
}

// Is has every BusyError be ErrBusy.
func (e *BusyError) Is(target error) bool { return target == ErrBusy }
