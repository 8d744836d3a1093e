package scan

import (
	"strings"
	"testing"

	"vmcryptfs/layout"
)

// TestPlaces: names are judged by their place where its tag is, cleartext below a place that adopts
// is told apart, and places and tags that do not belong together are found.
func TestPlaces(t *testing.T) {
	t.Parallel()
	id := func(n byte) layout.FileID { return layout.FileID{n} }
	s := newSite(t, layout.Settings{
		Places: []layout.Place{
			{Path: "adopts", ID: id(1), Policy: "encrypt", Adopt: true},
			{Path: "away", ID: id(2), Policy: "encrypt"},
			{Path: "clear", ID: id(3), Policy: "clear"},
			{Path: "disk", ID: id(4), Policy: "encrypt", Clear: []string{"a-flat.vmdk"}, Encrypt: []string{"*.log"}},
			{Path: "untagged", ID: id(5), Policy: "clear"},
		},
	})
	for _, dir := range []string{"adopts/sub", "clear", "clear/below", "disk", "untagged"} {
		s.text(dir+"/a-flat.vmdk", "GUEST")
		s.text(dir+"/b.log", "GUEST")
	}
	s.text("clear/.vmcryptfs.place", layout.TagText(id(3)))
	s.text("disk/.vmcryptfs.place", layout.TagText(id(4)))
	s.text("copy/.vmcryptfs.place", layout.TagText(id(3)))
	s.text("nobodys/.vmcryptfs.place", layout.TagText(id(9)))
	s.text("bad/.vmcryptfs.place", "GUEST")
	r := s.finds("adopted adopts/sub/a-flat.vmdk clear", "place away", "cleartext clear/below/a-flat.vmdk clear", "cleartext disk/b.log clear",
		"place untagged", "cleartext untagged/a-flat.vmdk clear", "tag copy/.vmcryptfs.place", "tag nobodys/.vmcryptfs.place", "tag bad/.vmcryptfs.place clear")
	for _, f := range r.Findings {
		switch f.Path {
		case "disk/b.log":
			if f.Place != "disk" || f.Policy != "encrypt" || f.Rule != nil {
				t.Errorf("%+v", f)
			}
		case "clear/below/a-flat.vmdk":
			if f.Rule == nil || *f.Rule != 5 || f.Class != "encrypt" || f.Bytes != 5 {
				t.Errorf("%+v", f)
			}
		case "copy/.vmcryptfs.place":
			if !strings.Contains(f.Why, "place clear:") {
				t.Errorf("%+v", f)
			}
		}
	}
	// Without the key no place makes a name clear, and none adopts.
	s.Keys = nil
	s.reopen()
	s.finds("cleartext adopts/sub/a-flat.vmdk clear", "place away", "cleartext clear/below/a-flat.vmdk clear", "cleartext clear/a-flat.vmdk clear",
		"cleartext disk/a-flat.vmdk clear", "cleartext disk/b.log clear", "place untagged", "cleartext untagged/a-flat.vmdk clear",
		"tag copy/.vmcryptfs.place", "tag nobodys/.vmcryptfs.place", "tag bad/.vmcryptfs.place clear")
}
