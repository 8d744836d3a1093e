package mounttest

import "os"

// The rules of docs/on-disk-format.md for a file of BACKING; repeated here, so the code under
// test cannot change the rules unnoticed.
const (
	magic     = "\x89VMCRYPT"
	dataStart = 1 << 20
)

// FormOf returns the form of a backing file: "empty", "encrypted" or "clear".
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
