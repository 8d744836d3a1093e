package main

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"vmcryptfs/advice"
	vmfs "vmcryptfs/fs"
)

func TestMountOptions(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		lists []string
		want  string // what list gives, sorted
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
			got := o.list()
			slices.Sort(got)
			if s := strings.Join(got, " "); s != c.want {
				t.Errorf("got %q, want %q", s, c.want)
			}
			// What the daemon is started with means the same.
			var again mountOptions
			if err := again.add(strings.Join(o.list(), ","), false); err != nil {
				t.Fatal(err)
			}
			if second := again.list(); !slices.Equal(second, o.list()) {
				t.Errorf("read again it is %q, was %q", second, o.list())
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
	if err := o.add("frobnicate,ro", true); err != nil || !o.readOnly {
		t.Errorf("sloppy: %v, read-only %t; want what is known taken", err, o.readOnly)
	}
	if err := o.add("bind", true); err == nil {
		t.Error("sloppy takes bind for something it does not know")
	}
}

func TestParseUnencrypted(t *testing.T) {
	t.Parallel()
	for word, want := range map[string]vmfs.Unencrypted{"deny": vmfs.Deny, "read": vmfs.Read, "write": vmfs.Write} {
		if got, err := parseUnencrypted(word); err != nil || got != want {
			t.Errorf("parseUnencrypted(%q) = %v, %v; want %v", word, got, err, want)
		}
	}
	for _, word := range []string{"", "Deny", "readwrite"} {
		if got, err := parseUnencrypted(word); err == nil || got != vmfs.Deny {
			t.Errorf("parseUnencrypted(%q) = %v, %v; want deny and an error", word, got, err)
		}
	}
}
