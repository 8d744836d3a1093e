package main

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"vmcryptfs/advice"
)

func TestMountOptions(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		lists []string
		want  string // result of Options, sorted
	}{
		{"none", nil, ""},
		{"for others alone", []string{"defaults,auto,_netdev,nofail,x-systemd.automount,comment=a=b,user,noatime,,default_permissions"}, ""},
		{"read-only, then not", []string{"ro", "rw"}, ""},
		{"read-only", []string{"rw,ro"}, "ro"},
		{"the later of a pair", []string{"suid,nodev,exec", "nosuid,dev"}, "dev exec nosuid"},
		{"other users", []string{"allow_other"}, "allow_other"},
		{"not other users", []string{"allow_other,noallow_other"}, "noallow_other"},
		{"pins", []string{"datastore=3f0c5b1e-0000-4000-8000-000000000000,kek=b=c"}, "datastore=3f0c5b1e-0000-4000-8000-000000000000 kek=b=c"},
		{"transport", []string{"transport=loop", "transport=go-fuse"}, "transport=go-fuse"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var o mountOptions
			for _, list := range c.lists {
				if err := o.add(list, false); err != nil {
					t.Fatal(err)
				}
			}
			got := o.Options()
			slices.Sort(got)
			if s := strings.Join(got, " "); s != c.want {
				t.Errorf("got %q, want %q", s, c.want)
			}
			// The options in the status of the mount mean the same.
			var again mountOptions
			if err := again.add(strings.Join(o.Options(), ","), false); err != nil {
				t.Fatal(err)
			}
			if second := again.Options(); !slices.Equal(second, o.Options()) {
				t.Errorf("read again it is %q, was %q", second, o.Options())
			}
		})
	}
}

func TestMountOptionsRefused(t *testing.T) {
	t.Parallel()
	for _, option := range []string{
		"frobnicate", "RO", "ro=1", "sync", "kek", "kek=", "datastore=", "datastore=3f0c", "unencrypted", "kms=",
		"bind", "auto=yes", "nonosuid", "xsuid", "transport=", "transport=gofuse",
	} {
		var o mountOptions
		err := o.add("rw,"+option, false)
		var usage *advice.UsageError
		if !errors.As(err, &usage) || !strings.Contains(err.Error(), strings.TrimSuffix(option, "=")) {
			t.Errorf("%q: %v, want a usage error that names it", option, err)
		}
	}
	var o mountOptions
	if err := o.add("frobnicate,ro", true); err != nil || !o.ReadOnly {
		t.Errorf("sloppy: %v, read-only %t; want what is known taken", err, o.ReadOnly)
	}
	if err := o.add("bind", true); err == nil {
		t.Error("sloppy takes bind for something it does not know")
	}
}

// TestUnclosedQuote: a quote without an end leaves the options after it alone.
func TestUnclosedQuote(t *testing.T) {
	t.Parallel()
	for _, list := range []string{`kek="a,ro`, `kek="`, `kek="a\"`, `kek="a",kms="b,ro`} {
		var o mountOptions
		if err := o.add(list, true); err == nil || !strings.Contains(err.Error(), "close the quotes") {
			t.Errorf("%s: %v, options %+v", list, err, o)
		}
	}
}
