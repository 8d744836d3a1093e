package daemon

import (
	"bytes"
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	vmfs "vmcryptfs/fs"
	"vmcryptfs/fs/transport"
)

// fullConfig has a value other than zero in every field.
func fullConfig() Config {
	on := true
	return Config{
		Backing: "/back\xffing", Mountpoint: "/m,\"\\ \n\x1b", Keys: KeyConfig{KMS: "/kms \xfe.toml", Dev: true},
		ReadOnly: true, AllowOther: &on, Kernel: []string{"nosuid", "dev"}, Transport: transport.GoFuse, Unencrypted: Unencrypted(vmfs.Write),
		Datastore: "3f0c5b1e-0000-4000-8000-000000000000", KEK: "k\xff\x001", Trust: true, Copy: true,
		Nonempty: true, Protect: true, Supervise: true, Again: true,
	}
}

// TestConfigHandedOn: a Config is the same at the other end of the pipe, in every field.
func TestConfigHandedOn(t *testing.T) {
	t.Parallel()
	full := fullConfig()
	fields := reflect.ValueOf(full)
	for i := range fields.NumField() {
		if fields.Field(i).IsZero() {
			t.Errorf("fullConfig leaves %s out", fields.Type().Field(i).Name)
		}
	}
	for _, c := range []Config{full, {Backing: "/b", Mountpoint: "/m"}} {
		text, err := c.encode()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := decodeConfig(text); err != nil || !reflect.DeepEqual(got, c) {
			t.Errorf("%s\nis %+v, %v; want %+v", text, got, err, c)
		}
	}
	if !reflect.DeepEqual(full, fullConfig()) {
		t.Errorf("encode changes what it encodes: %+v", full)
	}
}

func TestConfigRefused(t *testing.T) {
	t.Parallel()
	const right = `{"backing":"/b","mountpoint":"/m"}`
	if _, err := decodeConfig([]byte(right)); err != nil {
		t.Fatalf("%s: %v", right, err)
	}
	for text, want := range map[string]string{
		"":                             "EOF",
		"null":                         "not absolute",
		right[1:]:                      "cannot unmarshal",
		strings.TrimSuffix(right, "}"): "unexpected EOF",
		right + right:                  "something follows",
		right + "x":                    "something follows",
		`{"backing":"/b","mountpoint":"/m","shell":"sh"}`:         "unknown field",
		`{"backing":"/b","mountpoint":"/m","keys":{"token":"x"}}`: "unknown field",
		`{"backing":"b","mountpoint":"/m"}`:                       "not absolute",
		`{"backing":"/b","mountpoint":""}`:                        "not absolute",
		`{"backing":"/b","mountpoint":"/m","keys":{"kms":"k"}}`:   "not absolute",
		`{"backing":"/\\q","mountpoint":"/m"}`:                    "invalid syntax",
		`{"backing":"/b","mountpoint":"/m","datastore":"3f"}`:     "UUID",
		`{"backing":"/b","mountpoint":"/m","transport":"pigeon"}`: "not known",
		`{"backing":"/b","mountpoint":"/m","kernel":["suid,x"]}`:  "none of the kernel's",
		`{"backing":"/b","mountpoint":"/m","copy":true}`:          "reading alone",
		`{"backing":"/b","mountpoint":"/m","unencrypted":"all"}`:  "not known",
		`{"backing":"/b","mountpoint":"/m","unencrypted":1}`:      "cannot unmarshal",
		strings.Repeat(" ", longestConfig) + right:                "too long",
	} {
		if c, err := decodeConfig([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80q: %+v, %v; want an error with %q", text, c, err, want)
		}
	}
}

// FuzzConfig: every decoded Config can be encoded, and decodes to the same.
func FuzzConfig(f *testing.F) {
	text, err := fullConfig().encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"backing":"/b","mountpoint":"/m"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := decodeConfig(text)
		if err != nil {
			return
		}
		again, err := c.encode()
		if err != nil {
			t.Fatal(err)
		}
		second, err := decodeConfig(again)
		if err != nil || !reflect.DeepEqual(second, c) {
			t.Errorf("%s\nis %+v, %v; want %+v", again, second, err, c)
		}
		if third, err := second.encode(); err != nil || !bytes.Equal(third, again) {
			t.Errorf("%s encodes as %s, %v", again, third, err)
		}
	})
}

// TestHandedConfig: a daemon reads the Config of the parent once; child processes inherit nothing.
func TestHandedConfig(t *testing.T) {
	if _, ok, err := handedConfig(); ok || err != nil {
		t.Fatalf("without a parent: %t, %v", ok, err)
	}
	want := fullConfig()
	text, err := want.encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		text []byte
		good bool
	}{"whole": {text, true}, "torn": {text[:len(text)/2], false}, "empty": {nil, false}} {
		read, write, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := write.Write(c.text); err != nil {
			t.Fatal(err)
		}
		write.Close()
		fd, err := unix.Dup(int(read.Fd())) // handedConfig closes fd
		if err != nil {
			t.Fatal(err)
		}
		read.Close()
		t.Setenv(configEnv, strconv.Itoa(fd))
		got, ok, err := handedConfig()
		if !ok || (err == nil) != c.good || c.good && !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %t, %v", name, got, ok, err)
		}
		if value, set := os.LookupEnv(configEnv); set {
			t.Errorf("%s: %s=%s is left", name, configEnv, value)
		}
	}
	t.Setenv(configEnv, "stdin")
	if _, ok, err := handedConfig(); !ok || err == nil {
		t.Errorf("no descriptor: %t, %v", ok, err)
	}
}
