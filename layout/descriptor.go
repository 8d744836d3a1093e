package layout

// MaxDescriptor is the greatest length in bytes of a VMDK text descriptor.
const MaxDescriptor = 64 << 10

// IsDescriptor tells if b is wholly a VMDK text descriptor (design §4, late binding).
func IsDescriptor(b []byte) bool { panic("layout: not built yet") }
