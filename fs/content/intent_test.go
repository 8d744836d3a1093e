package content

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestIntentOf(t *testing.T) {
	for flags, want := range map[uint32]Intent{
		unix.O_RDONLY:                 {Read: true},
		unix.O_WRONLY:                 {Write: true},
		unix.O_RDWR | unix.O_DIRECT:   {Read: true, Write: true},
		unix.O_WRONLY | unix.O_APPEND: {Write: true, Append: true},
	} {
		if got := IntentOf(flags); got != want {
			t.Errorf("%#o: %+v, want %+v", flags, got, want)
		}
	}
}

// TestCovers: a descriptor that appends alone is for who appends, and none does more than it can.
func TestCovers(t *testing.T) {
	r, w, a := Intent{Read: true}, Intent{Write: true}, Intent{Write: true, Append: true}
	for _, tt := range []struct {
		can, want Intent
		covers    bool
	}{
		{both, both, true}, {both, r, true}, {both, w, true}, {both, a, true}, {both, Intent{}, true},
		{r, r, true}, {r, w, false}, {r, both, false}, {w, r, false}, {w, both, false}, {w, a, true},
		{a, a, true}, {a, w, false}, {a, r, false}, {Intent{Read: true, Write: true, Append: true}, r, true},
	} {
		if got := tt.can.Covers(tt.want); got != tt.covers {
			t.Errorf("%+v covers %+v: %t", tt.can, tt.want, got)
		}
	}
}
