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

// shorterCID is flatDescriptor with a CID of n digits fewer.
func shorterCID(n int) string { return strings.Replace(flatDescriptor, "6b2c3a5f"[:n], "", 1) }

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

		{"QEMU's CID with two digits fewer", shorterCID(2) + "\x00\n\x00\x00", true},
		{"QEMU's CID with seven digits fewer", shorterCID(7) + "\x00dk\" 0\n\x00", true},
		{"QEMU's CID with fewer digits twice", shorterCID(4) + "\x00\n\x00\n\x00", true},

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
		{"remnant of another text", shorterCID(2) + "\x00\"\n\x00x", false},
		{"remnant longer than a CID", shorterCID(7) + "\x00mdk\" 0\n\x00", false},
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
	for _, s := range []string{"", flatDescriptor, flatDescriptor + "\x00\x00", shorterCID(3) + "\x00\"\n\x00", descriptorLine + "\r\n\x7f", "KDMV"} {
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
	pieces := strings.Split(string(b), "\x00")
	text, after := pieces[0], 0 // after: the last byte behind text that is not NUL
	for i := range b {
		if i < len(text) && (b[i] < 0x20 && b[i] != 9 && b[i] != 10 && b[i] != 13 || b[i] == 0x7f) {
			return false
		}
		if i > len(text) && b[i] != 0 {
			after = i
		}
	}
	for _, p := range pieces[1:] {
		if p != text[max(0, len(text)-len(p)):] {
			return false
		}
	}
	return len(b) <= 65536 && after <= len(text)+6 && (text == "# Disk DescriptorFile" || text == "# Disk DescriptorFile\r" ||
		strings.HasPrefix(text, "# Disk DescriptorFile\n") || strings.HasPrefix(text, "# Disk DescriptorFile\r\n"))
}
