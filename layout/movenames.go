package layout

import "strings"

// Names that policies and moves give files of BACKING.
const (
	movePrefix = ReservedPrefix + "-move-"
	gonePrefix = ReservedPrefix + "-gone-"
	// PlaceTag is the name of the file, in the directory of a place whose policy does not encrypt,
	// that holds the place's id.
	PlaceTag = ReservedPrefix + ".place"
)

// MoveName is the name of the companion of the move id, beside the carrier.
func MoveName(id FileID) string { return movePrefix + id.String() }

// GoneName is the name of the companion while the carrier is removed.
func GoneName(id FileID) string { return gonePrefix + id.String() }

// ParseMoveName returns the id of the move whose companion name is; gone reports that the name is
// GoneName's. ok is false for every other name.
func ParseMoveName(name string) (id FileID, gone, ok bool) {
	text, gone := strings.CutPrefix(name, gonePrefix)
	if !gone {
		if text, ok = strings.CutPrefix(name, movePrefix); !ok {
			return FileID{}, false, false
		}
	}
	id, err := ParseFileID(text)
	ok = err == nil && id.String() == text
	return id, gone, ok
}

// TagText is the content of PlaceTag for the place id.
func TagText(id FileID) string { return id.String() + "\n" }
