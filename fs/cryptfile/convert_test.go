package cryptfile_test

import (
	"bytes"
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/fs/cryptfile/faultfile"
	"vmcryptfs/integration/tally"
	"vmcryptfs/layout"
)

// convertible are contents with and without holes, across chunks.
func convertible() map[string][]byte {
	sparse := make([]byte, 200<<10)
	copy(sparse[70<<10:], pattern(5000, 1))
	copy(sparse[150<<10:], pattern(1, 2))
	return map[string][]byte{
		"empty":      {},
		"descriptor": []byte("# Disk DescriptorFile\nversion=1\n"),
		"one unit":   pattern(512, 3),
		"odd":        pattern(5001, 4),
		"zeros":      make([]byte, 5001),
		"sparse":     sparse,
		"dense":      pattern(130<<10+17, 5),
	}
}

// clearFile puts content in clear under the name "f".
func clearFile(t *testing.T, d *faultfile.Disk, content []byte) {
	t.Helper()
	b := d.Create()
	if _, err := b.WriteAt(content, 0, cryptfile.Volatile); err != nil {
		t.Fatal(err)
	}
	must(t, d.Link(b, "f"))
	d.Record()
}

func stored(t *testing.T, b cryptfile.Backing) []byte {
	t.Helper()
	size, err := b.Size()
	must(t, err)
	p := make([]byte, size)
	if n, err := b.ReadAt(p, 0); n != len(p) || err != nil {
		t.Fatalf("ReadAt = %d, %v", n, err)
	}
	return p
}

// conversion turns "f" of the disk into the file's other form.
func (x *fixture) conversion(t *testing.T, d *faultfile.Disk, content []byte, encrypt bool) (cryptfile.Backing, error) {
	t.Helper()
	c := cryptfile.Conversion{Dir: faultfile.Dir{Disk: d}, Temp: "tmp", Name: "f"}
	if !encrypt {
		return c.ToClear(x.open(t, d.Open("f")), int64(len(content)))
	}
	dek := x.dek(t)
	defer dek.Wipe()
	return c.ToEncrypted(bytes.NewReader(content), int64(len(content)), x.header, dek)
}

// checkForm reads "f" in either form.
func (x *fixture) checkForm(t *testing.T, d *faultfile.Disk, what string, want []byte) (encrypted bool) {
	t.Helper()
	b := d.Open("f")
	if b == nil {
		t.Fatalf("%s: no name", what)
	}
	encrypted, err := cryptfile.IsEncrypted(b)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	var got []byte
	if encrypted {
		f := x.open(t, b)
		got = content(t, f)
		must(t, f.Close())
	} else {
		got = stored(t, b)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("%s: encrypted %t: %d bytes are not the %d of the file", what, encrypted, len(got), len(want))
	}
	return encrypted
}

func TestConversion(t *testing.T) {
	t.Parallel()
	x := newFixture(t)
	for name, plain := range convertible() {
		t.Run(name, func(t *testing.T) {
			d := faultfile.New()
			clearFile(t, d, plain)
			b, err := x.conversion(t, d, plain, true)
			must(t, err)
			if !x.checkForm(t, d, "to encrypted", plain) {
				t.Error("not encrypted")
			}
			// The returned file has the name now.
			write(t, x.open(t, b), pattern(1, 9), 0)
			changed := resized(plain, max(1, len(plain)))
			copy(changed, pattern(1, 9))
			x.checkForm(t, d, "written after", changed)
			if b, err = x.conversion(t, d, changed, false); err != nil {
				t.Fatal(err)
			}
			if x.checkForm(t, d, "to clear", changed) || !bytes.Equal(stored(t, b), changed) {
				t.Error("not clear")
			}
			if d.Open("tmp") != nil {
				t.Error("the temporary is left")
			}
		})
	}
}

func TestConversionKeepsHoles(t *testing.T) {
	t.Parallel()
	x := newFixture(t)
	plain := convertible()["sparse"]
	d := faultfile.New()
	clearFile(t, d, plain)
	b, err := x.conversion(t, d, plain, true)
	must(t, err)
	f := x.open(t, b)
	if at, err := f.Seek(0, unix.SEEK_DATA); at != 70<<10 || err != nil {
		t.Errorf("first data at %d, %v, want %d", at, err, 70<<10)
	}
	b, err = x.conversion(t, d, plain, false)
	must(t, err)
	if at, err := b.Seek(0, unix.SEEK_DATA); at != 68<<10 || err != nil {
		t.Errorf("in clear, first data at %d, %v, want %d", at, err, 68<<10)
	}
}

func TestCrashInConversion(t *testing.T) {
	t.Parallel()
	x := newFixture(t)
	states := 0
	for name, plain := range map[string][]byte{"odd": pattern(5001, 4), "units": pattern(1024, 5), "empty": {}} {
		for _, encrypt := range []bool{true, false} {
			d := faultfile.New()
			clearFile(t, d, plain)
			if !encrypt {
				_, err := x.conversion(t, d, plain, true)
				must(t, err)
				d.Record()
			}
			_, err := x.conversion(t, d, plain, encrypt)
			must(t, err)
			forms := map[bool]int{}
			each := func(s faultfile.State) {
				states++
				form := x.checkForm(t, s.Disk, name+": "+s.What, plain)
				forms[form]++
				if s.Steps == d.Steps() && form != encrypt {
					t.Fatalf("%s: %s: the old form came back", name, s.What)
				}
			}
			d.Kills(each)
			d.PowerLosses(40, each)
			if forms[true] == 0 || forms[false] == 0 {
				t.Errorf("%s: states saw forms %v, want both", name, forms)
			}
		}
	}
	tally.Add(t, "crash states", states)
	t.Logf("%d states", states)
}

// Each refused step leaves the old form and no temporary. The last step is the exception: then
// the new form has the name, and the new file is returned.
func TestConversionFaults(t *testing.T) {
	t.Parallel()
	x := newFixture(t)
	plain := pattern(5001, 4)
	for _, encrypt := range []bool{true, false} {
		for at := 1; ; at++ {
			d := faultfile.New()
			clearFile(t, d, plain)
			if !encrypt {
				_, err := x.conversion(t, d, plain, true)
				must(t, err)
			}
			step, faulty := 0, faultfile.Step{}
			d.Fault = func(s faultfile.Step) (int64, error) {
				if s.Op == faultfile.Read {
					return 0, nil
				}
				if step++; step == at {
					faulty = s
					return 0, unix.ENOSPC
				}
				return 0, nil
			}
			b, err := x.conversion(t, d, plain, encrypt)
			d.Fault = nil
			if step < at {
				break
			}
			if !errors.Is(err, unix.ENOSPC) {
				t.Fatalf("%v refused: %v", faulty, err)
			}
			published := faulty.Op == faultfile.SyncDir
			if (b != nil) != published {
				t.Errorf("%v refused: file returned %t", faulty, b != nil)
			}
			if form := x.checkForm(t, d, faulty.String(), plain); (form == encrypt) != published {
				t.Errorf("%v refused: encrypted %t", faulty, form)
			}
			if d.Open("tmp") != nil {
				t.Errorf("%v refused: the temporary is left", faulty)
			}
		}
	}
}

func TestConversionPrepare(t *testing.T) {
	t.Parallel()
	x := newFixture(t)
	dek := x.dek(t)
	defer dek.Wipe()
	d := faultfile.New()
	clearFile(t, d, pattern(100, 1))
	c := cryptfile.Conversion{Dir: faultfile.Dir{Disk: d}, Temp: "tmp", Name: "f"}
	c.Prepare = func(b cryptfile.Backing) error {
		if size, _ := b.Size(); size != layout.DataOffset+layout.StoredLen(100) {
			t.Errorf("prepared at %d bytes, not whole", size)
		}
		return unix.EPERM
	}
	if _, err := c.ToEncrypted(bytes.NewReader(pattern(100, 1)), 100, x.header, dek); !errors.Is(err, unix.EPERM) {
		t.Errorf("Prepare refused: %v", err)
	}
	if x.checkForm(t, d, "Prepare refused", pattern(100, 1)) {
		t.Error("converted all the same")
	}
}

// Bytes that look encrypted are never written in clear, and a source that ends early is refused.
func TestConversionRefuses(t *testing.T) {
	t.Parallel()
	d := faultfile.New()
	clearFile(t, d, pattern(10, 1))
	c := cryptfile.Conversion{Dir: faultfile.Dir{Disk: d}, Temp: "tmp", Name: "f"}
	magic := []byte(layout.Magic + " and more")
	if _, err := c.ToClear(bytes.NewReader(magic), int64(len(magic))); !errors.Is(err, unix.EPERM) {
		t.Errorf("content with the magic: %v, want EPERM", err)
	}
	if _, err := c.ToClear(bytes.NewReader(magic[1:]), int64(len(magic))); err == nil {
		t.Error("a short source was taken for whole")
	}
	if d.Open("tmp") != nil || !bytes.Equal(stored(t, d.Open("f")), pattern(10, 1)) {
		t.Error("a refused conversion left something")
	}
}
