package advice

import (
	"errors"
	"fmt"
	"os"
	"testing"
)

func TestError(t *testing.T) {
	t.Parallel()
	err := fmt.Errorf("mount: %w", New(os.ErrNotExist, "make it"))
	if got, want := err.Error(), "mount: "+os.ErrNotExist.Error(); got != want {
		t.Errorf("text %q, want %q: advice is shown apart", got, want)
	}
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v hides its cause", err)
	}
	if own, ok := errors.AsType[*Error](err); !ok || own.Do != "make it" {
		t.Errorf("advice %+v, want what New was given", own)
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	for _, err := range []error{Usage(os.ErrInvalid), Usagef("option: %w", os.ErrInvalid)} {
		if _, ok := errors.AsType[*UsageError](fmt.Errorf("mount: %w", err)); !ok {
			t.Errorf("%v is no UsageError", err)
		}
		if !errors.Is(err, os.ErrInvalid) {
			t.Errorf("%v hides its cause", err)
		}
	}
}
