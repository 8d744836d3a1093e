package integration

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"vmcryptfs/integration/mounttest"
)

// TestDemoFits: the output of make demo fits on a screen of 80 columns, even where the paths do
// not.
func TestDemoFits(t *testing.T) {
	t.Parallel()
	top := filepath.Join(t.TempDir(), strings.Repeat("a-long-name-", 7))
	program := mounttest.Program(t)
	t.Cleanup(func() { mounttest.Run(t, nil, program, "umount", filepath.Join(top, "vm")) })
	got := mounttest.Run(t, []string{"VMCRYPTFS_DEMO=" + top, "COLUMNS=80"}, "../demo/demo", program)
	if got.Code != 0 {
		t.Fatal(got)
	}
	for line := range strings.Lines(got.Stdout) {
		if line = strings.TrimSuffix(line, "\n"); utf8.RuneCountInString(line) > 80 {
			t.Errorf("%d columns: %s", utf8.RuneCountInString(line), line)
		}
	}
	for _, want := range []string{"a-long-name-", "GUEST SE", "nowhere in BACKING", "umount"} {
		if !strings.Contains(got.Stdout, want) {
			t.Errorf("%q is not shown:\n%s", want, got.Stdout)
		}
	}
}

// TestUninstall: make uninstall removes the files of make install, and no others.
func TestUninstall(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	// -o build: the program is built already.
	in := []string{"make", "-C", "..", "-o", "build", "DESTDIR=" + dir, "PREFIX=/opt/v", "PROGRAM=" + mounttest.Program(t)}
	kept := []string{"etc/vmcryptfs/kms.toml", "var/lib/vmcryptfs/datastores.toml", "var/log/vmcryptfs/x.log", "opt/v/bin/other"}
	for _, name := range kept {
		writeBelow(t, dir, name)
	}
	if got := mounttest.Run(t, nil, append(in, "install")...); got.Code != 0 {
		t.Fatal(got)
	}
	installed := []string{"opt/v/bin/vmcryptfs", "sbin/mount.fuse.vmcryptfs"}
	for _, name := range installed {
		if _, err := os.Lstat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
	got := mounttest.Run(t, nil, append(in, "uninstall")...)
	if got.Code != 0 || !strings.Contains(got.Stdout, "left: "+dir+"/etc/vmcryptfs\n") {
		t.Error(got)
	}
	for _, name := range installed {
		if _, err := os.Lstat(filepath.Join(dir, name)); !os.IsNotExist(err) {
			t.Errorf("%s is still there: %v", name, err)
		}
	}
	for _, name := range kept {
		if _, err := os.Lstat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
}

// TestUninstallUnderMount: the program needed to end a mount is not removed while a mount exists.
func TestUninstallUnderMount(t *testing.T) {
	t.Parallel()
	d := mounttest.New(t)
	prefix, spaced := t.TempDir(), filepath.Join(t.TempDir(), "a b")
	writeBelow(t, prefix, "bin/vmcryptfs")
	if err := errors.Join(os.Mkdir(spaced, 0o700), unix.Mount(d.Mnt, spaced, "", unix.MS_BIND, "")); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(spaced, 0)
	got := mounttest.Run(t, nil, "make", "-C", "..", "uninstall", "PREFIX="+prefix)
	// The printed paths can be given to a shell.
	for _, path := range []string{d.Mnt, strings.ReplaceAll(spaced, " ", `\ `)} {
		if got.Code == 0 || !strings.Contains(got.Stderr, "vmcryptfs umount "+path+"\n") {
			t.Errorf("%v does not name %s", got, path)
		}
	}
	if _, err := os.Stat(filepath.Join(prefix, "bin/vmcryptfs")); err != nil {
		t.Error(err)
	}
}

// TestPackagesTell: packages are announced before their installation, daemons by their names. apt-get
// is asked again when it fails.
func TestPackagesTell(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"dpkg-query": "#!/bin/sh\nexit 1\n", // none is installed
		"apt-get":    "#!/bin/sh\necho \"apt-get $*\"\nexit 7\n",
		"sleep":      "#!/bin/sh\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	got := mounttest.Run(t, []string{"PATH=" + dir + ":" + os.Getenv("PATH")}, "../scripts/packages", "test")
	told, asked, _ := strings.Cut(got.Stdout, "apt-get ")
	if got.Code != 7 || asked == "" {
		t.Fatal(got)
	}
	if !strings.Contains(asked, "apt-get ") {
		t.Errorf("asked once, where a mirror may be well a moment later:\n%s", got.Stdout)
	}
	for _, want := range []string{"libvirt-daemon-system", "starts at once", "libvirtd", "virtlogd", "systemctl disable"} {
		if !strings.Contains(told, want) {
			t.Errorf("%q is not said before apt-get is asked:\n%s", want, got.Stdout)
		}
	}
}

// writeBelow makes a file and its directories.
func writeBelow(t *testing.T, dir, name string) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("kept\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}
