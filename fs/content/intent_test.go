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
