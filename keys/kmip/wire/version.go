package wire

import (
	"fmt"
	"slices"

	"github.com/gemalto/kmip-go/kmip14"
	"github.com/gemalto/kmip-go/ttlv"
)

// Version is a version of KMIP; the zero value is none.
type Version struct{ Major, Minor int32 }

// Versions returns the versions spoken here, the newest first.
func Versions() []Version {
	return []Version{{2, 0}, {1, 4}, {1, 3}, {1, 2}, {1, 1}, {1, 0}}
}

// String is "1.4".
func (v Version) String() string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }

// ParseVersion parses a version such as "1.4", which must be one of Versions.
func ParseVersion(s string) (Version, error) {
	all := Versions()
	i := slices.IndexFunc(all, func(v Version) bool { return v.String() == s })
	if i < 0 {
		return Version{}, fmt.Errorf("KMIP version %q is none of %v", s, all)
	}
	return all[i], nil
}

// Value is the version as a Protocol Version structure.
func (v Version) Value() ttlv.Value {
	return ttlv.NewStruct(kmip14.TagProtocolVersion,
		ttlv.NewValue(kmip14.TagProtocolVersionMajor, v.Major),
		ttlv.NewValue(kmip14.TagProtocolVersionMinor, v.Minor))
}

// AsVersion reads a Protocol Version structure.
func (i Item) AsVersion() (Version, error) {
	major, err := i.Int(kmip14.TagProtocolVersionMajor)
	if err != nil {
		return Version{}, err
	}
	minor, err := i.Int(kmip14.TagProtocolVersionMinor)
	if err != nil {
		return Version{}, err
	}
	return Version{major, minor}, nil
}
