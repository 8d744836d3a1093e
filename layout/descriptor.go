package layout

import "bytes"

// MaxDescriptor is the greatest length in bytes of a VMDK text descriptor.
const MaxDescriptor = 64 << 10

// descriptorLine is the first line of every VMDK text descriptor.
const descriptorLine = "# Disk DescriptorFile"

// IsDescriptor tells if b is wholly a VMDK text descriptor (design §4, late binding):
// at most MaxDescriptor bytes, that first line, and text to its end, which is without
// control characters but tab, CR and LF, and may be padded with NULs. Bytes from 0x80
// on are text, since a descriptor declares its code page.
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
