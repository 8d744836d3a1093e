package integration

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// manifest is the content of a tree, path by path. In words: content, owners, modes, times,
// links, extended attributes and ACLs. Of regular files also the data ranges, pairs of begin and
// end; the rest are holes.
type manifest struct {
	text map[string]string
	data map[string][]int64
}

func manifestOf(t *testing.T, top string) manifest {
	t.Helper()
	m := manifest{map[string]string{}, map[string][]int64{}}
	first := map[uint64]string{} // path of the first link by inode number
	err := filepath.WalkDir(top, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(top, path)
		if name == ".vmcryptfs" { // of BACKING
			return filepath.SkipDir
		}
		if m.text[name], err = describe(path, name, first); err == nil && e.Type().IsRegular() {
			m.data[name], err = dataOf(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// wantManifest checks that two trees are the same, and that every hole of 64 KiB or more is still
// a hole. A copy may have more holes: tools make holes of zeros. A copy may have fewer small
// holes: tar and cp look for none in a file whose blocks cover its size.
func wantManifest(t *testing.T, what string, got, want manifest) {
	t.Helper()
	if diff := cmp.Diff(want.text, got.text); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
	const worth = 64 << 10
	for name, data := range want.data {
		for i, hole := 0, int64(0); i < len(data); i, hole = i+2, data[i+1] {
			if end := data[i]; end-hole >= worth && overlaps(got.data[name], hole, end) {
				t.Errorf("%s: %s has a hole from %d to %d, and its copy data at %v", what, name, hole, end, got.data[name])
			}
		}
	}
}

// overlaps reports whether there is data between begin and end.
func overlaps(data []int64, begin, end int64) bool {
	for i := 0; i < len(data); i += 2 {
		if data[i] < end && data[i+1] > begin {
			return true
		}
	}
	return false
}

func describe(path, name string, first map[uint64]string) (string, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "mode %o, owner %d:%d, changed %d.%09d", st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
	attributes, err := attributesOf(path)
	if err != nil {
		return "", err
	}
	b.WriteString(attributes)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		target, err := os.Readlink(path)
		fmt.Fprintf(&b, ", to %s", target)
		return b.String(), err
	case unix.S_IFREG:
		if _, seen := first[st.Ino]; !seen {
			first[st.Ino] = name
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, ", %d bytes, %x, %d links, one is %s", len(content), sha256.Sum256(content), st.Nlink, first[st.Ino])
	}
	return b.String(), nil
}

// attributesOf lists all extended attributes, including ACLs.
func attributesOf(path string) (string, error) {
	list := make([]byte, 4096)
	n, err := unix.Llistxattr(path, list)
	if err != nil {
		return "", fmt.Errorf("attributes of %s: %w", path, err)
	}
	var all []string
	for _, name := range strings.Split(strings.TrimSuffix(string(list[:n]), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		value := make([]byte, 4096)
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			return "", fmt.Errorf("attribute %s of %s: %w", name, path, err)
		}
		all = append(all, fmt.Sprintf(", %s=%q", name, value[:n]))
	}
	slices.Sort(all)
	return strings.Join(all, ""), nil
}

// dataOf is where a file has data.
func dataOf(path string) ([]int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	var all []int64
	for at := int64(0); ; {
		begin, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) { // but a hole from there to the end
			return append(all, size, size), nil
		}
		if err != nil {
			return nil, fmt.Errorf("data of %s from %d: %w", path, at, err)
		}
		if at, err = unix.Seek(int(f.Fd()), begin, unix.SEEK_HOLE); err != nil {
			return nil, fmt.Errorf("hole of %s from %d: %w", path, begin, err)
		}
		all = append(all, begin, at)
	}
}
