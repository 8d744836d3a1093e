package layout

// MaxSettings bounds a settings file in bytes.
const MaxSettings = 64 << 10

// Settings are the datastore's own: BACKING/.vmcryptfs/datastore.toml.
type Settings struct {
	Format   int
	ID       FileID // the datastore's id, a UUID
	Provider string
	KEK      string // key identifier for new files
	Serial   uint64 // grows by one at every change
	Encrypt  []string
	Clear    []string
}

// Sealed is a settings file as read: the settings, the bytes that the seal
// covers, and the seal.
type Sealed struct {
	Settings Settings
	Body     []byte // everything before the [seal] table
	MAC      [32]byte
	Previous *[32]byte // mac_previous: under the KEK before this one
}

// ParseSettings reads a settings file. Errors name the line. It proves nothing:
// keys.VerifySeal does.
func ParseSettings(b []byte) (*Sealed, error) { panic("layout: not built yet") }

// Encode gives the text before the [seal] table; the same settings give the same bytes.
func (s *Settings) Encode() []byte { panic("layout: not built yet") }

// AppendSeal appends the [seal] table to body.
func AppendSeal(body []byte, mac [32]byte, previous *[32]byte) []byte {
	panic("layout: not built yet")
}
