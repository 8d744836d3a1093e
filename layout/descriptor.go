package layout

import "bytes"

// MaxDescriptor is the greatest length in bytes of a VMDK text descriptor.
const MaxDescriptor = 64 << 10

// descriptorLine is the first line of every VMDK text descriptor.
const descriptorLine = "# Disk DescriptorFile"

// maxRemnant is the greatest length in bytes of a remnant: a CID has eight digits at most and one at
// least, and a NUL takes the place of the first byte left.
const maxRemnant = 6

// IsDescriptor reports whether all of b is a VMDK text descriptor (design §4, late binding). A
// descriptor has at most MaxDescriptor bytes, begins with the line `# Disk DescriptorFile`, and
// is text to the end, without control characters except tab, CR and LF. Trailing NULs are
// allowed, and so is a remnant among the NULs. Bytes from 0x80 on count as text, since a descriptor
// declares a code page.
func IsDescriptor(b []byte) bool {
	if len(b) > MaxDescriptor {
		return false
	}
	text, rest, _ := bytes.Cut(b, []byte{0})
	first, _, _ := bytes.Cut(text, []byte("\n"))
	if string(bytes.TrimSuffix(first, []byte("\r"))) != descriptorLine {
		return false
	}
	for _, c := range text {
		if (c < ' ' && c != '\t' && c != '\r' && c != '\n') || c == 0x7f {
			return false
		}
	}
	return isRemnant(text, bytes.TrimRight(rest, "\x00"))
}

// isRemnant reports whether rest, found after the NUL that ends text, is what QEMU leaves of a longer
// text: QEMU gives a disk another CID at the first write, and writes the text anew over the old one,
// whose last bytes stay if the new CID has fewer digits. Both texts end alike.
func isRemnant(text, rest []byte) bool {
	if len(rest) > maxRemnant {
		return false
	}
	for piece := range bytes.SplitSeq(rest, []byte{0}) {
		if !bytes.HasSuffix(text, piece) {
			return false
		}
	}
	return true
}
