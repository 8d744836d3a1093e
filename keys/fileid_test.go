package keys

import "testing"

func TestNewFileID(t *testing.T) {
	t.Parallel()
	for range 100 {
		id := NewFileID()
		if text := id.String(); text[14] != '4' || id[8]&0xc0 != 0x80 {
			t.Errorf("%s is no UUID of version 4", text)
		}
		if id == NewFileID() {
			t.Errorf("%s is given twice", id)
		}
	}
}
