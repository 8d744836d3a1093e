package layout

import (
	"bytes"
	"strings"
	"testing"
)

const flatDescriptor = `# Disk DescriptorFile
version=1
CID=6b2c3a5f
parentCID=ffffffff
createType="monolithicFlat"

# Extent description
RW 20480 FLAT "disk-flat.vmdk" 0
`

func TestIsDescriptor(t *testing.T) {
	fill := func(n int) string { return flatDescriptor + strings.Repeat("#", n-len(flatDescriptor)) }
	for _, c := range []struct {
		name, content string
		want          bool
	}{
		{"qemu's", flatDescriptor, true},
		{"first line alone", descriptorLine, true},
		{"first line and newline", descriptorLine + "\n", true},
		{"CRLF", strings.ReplaceAll(flatDescriptor, "\n", "\r\n"), true},
		{"tabs", flatDescriptor + "\tx\n", true},
		{"trailing NULs", flatDescriptor + strings.Repeat("\x00", 512), true},
		{"a code page", flatDescriptor + "encoding=\"windows-1252\"\n# \xe4\x80\xff\n", true},
		{"greatest", fill(MaxDescriptor), true},
		{"greatest with NULs", flatDescriptor + strings.Repeat("\x00", MaxDescriptor-len(flatDescriptor)), true},

		{"empty", "", false},
		{"NULs alone", strings.Repeat("\x00", 512), false},
		{"one over", fill(MaxDescriptor + 1), false},
		{"NULs over", flatDescriptor + strings.Repeat("\x00", MaxDescriptor), false},
		{"sparse disk", "KDMV\x01\x00\x00\x00", false},
		{"ESXi sparse disk", "COWD\x01\x00\x00\x00", false},
		{"cut first line", descriptorLine[:10], false},
		{"more on the first line", descriptorLine + "s\n", false},
		{"blank at the end of the first line", descriptorLine + " \n", false},
		{"blank in front", " " + flatDescriptor, false},
		{"newline in front", "\n" + flatDescriptor, false},
		{"byte order mark", "\xef\xbb\xbf" + flatDescriptor, false},
		{"other case", strings.ToLower(flatDescriptor), false},
		{"CR alone after the first line", descriptorLine + "\rversion=1\n", false},
		{"NUL within", flatDescriptor + "\x00\x00x", false},
		{"escape", flatDescriptor + "\x1b", false},
		{"DEL", flatDescriptor + "\x7f", false},
		{"form feed", flatDescriptor + "\f", false},
		{"disk after the first lines", flatDescriptor + "\x01\x02\x03", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if got := IsDescriptor([]byte(c.content)); got != c.want {
				t.Errorf("IsDescriptor = %v, want %v", got, c.want)
			}
		})
	}
}

// FuzzDescriptor holds IsDescriptor against the design's words, read byte by byte
// from the end.
func FuzzDescriptor(f *testing.F) {
	for _, s := range []string{"", flatDescriptor, flatDescriptor + "\x00\x00", descriptorLine + "\r\n\x7f", "KDMV"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		got := IsDescriptor(b)
		if !bytes.Equal(b, before) {
			t.Fatal("the content was changed")
		}
		if want := isDescriptorByWords(b); got != want {
			t.Errorf("IsDescriptor(%q) = %v, want %v", b, got, want)
		}
	})
}

func isDescriptorByWords(b []byte) bool {
	text := false // seen a byte other than a trailing NUL
	for i := len(b) - 1; i >= 0; i-- {
		if b[i] == 0 && !text {
			continue
		}
		text = true
		if b[i] < 0x20 && b[i] != 9 && b[i] != 10 && b[i] != 13 || b[i] == 0x7f {
			return false
		}
	}
	s := strings.TrimRight(string(b), "\x00")
	return len(b) <= 65536 && (s == "# Disk DescriptorFile" || s == "# Disk DescriptorFile\r" ||
		strings.HasPrefix(s, "# Disk DescriptorFile\n") || strings.HasPrefix(s, "# Disk DescriptorFile\r\n"))
}
