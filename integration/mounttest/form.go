package mounttest

import "os"

// What docs/on-disk-format.md says of a file of BACKING; said once more here, so that
// the code under test cannot change it unseen.
const (
	magic     = "\x89VMCRYPT"
	dataStart = 1 << 20
)

// FormOf tells what a backing file holds: "empty", "encrypted" or "clear".
func FormOf(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	st, err := f.Stat()
	if err != nil {
		return "", err
	}
	head := make([]byte, len(magic))
	if st.Size() == 0 {
		return "empty", nil
	}
	if st.Size() >= dataStart {
		if _, err := f.ReadAt(head, 0); err != nil {
			return "", err
		}
	}
	if string(head) == magic {
		return "encrypted", nil
	}
	return "clear", nil
}
