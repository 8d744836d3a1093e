package doctor

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"vmcryptfs/keys"
	"vmcryptfs/keys/kmip"
)

func TestWarnServer(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		report kmip.ServerReport
		want   []string // parts of the warnings, in order
	}{
		{"nothing was reached", kmip.ServerReport{}, nil},
		{"all well", kmip.ServerReport{Operations: []string{"Get", "Create"}}, nil},
		{"no Get", kmip.ServerReport{Address: "kms:5696", Operations: []string{"Create"}}, []string{"kms:5696 does not offer Get"}},
		{"no Create", kmip.ServerReport{Address: "kms:5696", Operations: []string{"Get"}}, []string{"kms:5696 does not offer Create"}},
	} {
		var p Provider
		p.warnServer(&c.report)
		p.warnServer(&c.report) // told once
		if len(p.Warnings) != len(c.want) {
			t.Errorf("%s: warnings %q, want %q", c.name, p.Warnings, c.want)
			continue
		}
		for i, want := range c.want {
			if !strings.Contains(p.Warnings[i], want) {
				t.Errorf("%s: warning %q, want %q", c.name, p.Warnings[i], want)
			}
		}
	}
}

func TestTryKey(t *testing.T) {
	t.Parallel()
	kek, err := keys.NewKEK("corp", "k1", slices.Repeat([]byte{7}, keys.KEKSize))
	if err != nil {
		t.Fatal(err)
	}
	defer kek.Wipe()
	right := kek.CheckValue()
	wrong := right
	wrong[3] ^= 1
	for _, c := range []struct {
		check *[16]byte
		want  error
	}{{nil, nil}, {&right, nil}, {&wrong, keys.ErrWrongKey}} {
		if err := tryKey(kek, c.check); !errors.Is(err, c.want) {
			t.Errorf("check value %v: %v, want %v", c.check, err, c.want)
		}
	}
}
