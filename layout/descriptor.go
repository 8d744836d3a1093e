package layout

import "bytes"

// MaxDescriptor is the greatest length in bytes of a VMDK text descriptor.
const MaxDescriptor = 64 << 10

// descriptorLine is the first line of every VMDK text descriptor.
const descriptorLine = "# Disk DescriptorFile"

// IsDescriptor reports whether all of b is a VMDK text descriptor (design §4, late binding). A
// descriptor has at most MaxDescriptor bytes, begins with the line `# Disk DescriptorFile`, and
// is text to the end, without control characters except tab, CR and LF. Trailing NULs are
// allowed. Bytes from 0x80 on count as text, since a descriptor declares a code page.
func IsDescriptor(b []byte) bool {
	if len(b) > MaxDescriptor {
		return false
	}
	b = bytes.TrimRight(b, "\x00")
	first, _, _ := bytes.Cut(b, []byte("\n"))
	if string(bytes.TrimSuffix(first, []byte("\r"))) != descriptorLine {
		return false
	}
	for _, c := range b {
		if (c < ' ' && c != '\t' && c != '\r' && c != '\n') || c == 0x7f {
			return false
		}
	}
	return true
}
