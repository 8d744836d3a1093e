package layout

// Class says what becomes of a file's content, by its name.
type Class uint8

// The zero Class is Encrypt, so that a forgotten decision protects.
const (
	Encrypt Class = iota
	Clear
	Inspect // encrypted until its content proves to be a VMDK descriptor
)

// Verdict is the answer for one name and the rule that gave it.
type Verdict struct {
	Class   Class
	Rule    int    // 1…9 of docs/on-disk-format.md; 0: the datastore's settings
	Pattern string // the pattern that matched, empty for rule 9
	About   string // the rule in words: "disks", "logs", …
	Base    string // the name as matched: lower case, decoration removed
}

// MayTurnClear tells if a file that this verdict encrypts may become cleartext
// under another name (design §4, renames): only rule 9 and Inspect.
func (v Verdict) MayTurnClear() bool { panic("layout: not built yet") }

// Rules classify names: the settings' globs first, then the built-in table. The
// nil *Rules is the built-in table alone.
type Rules struct{}

// NewRules checks the settings' globs.
func NewRules(encrypt, clear []string) (*Rules, error) { panic("layout: not built yet") }

// Classify decides for the last element of name.
func (r *Rules) Classify(name string) Verdict { panic("layout: not built yet") }

// ReservedPrefix begins the names that belong to vmcryptfs.
const ReservedPrefix = ".vmcryptfs"

// Reserved tells if name, one path element, belongs to vmcryptfs: hidden through
// the mount, and not to be created there.
func Reserved(name string) bool { panic("layout: not built yet") }
