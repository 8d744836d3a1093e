package main

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"vmcryptfs/fs/daemon"
	"vmcryptfs/keys/devkms"
	"vmcryptfs/keys/kmip"
)

// The states in the life of a key, with dates, as given by the KMS.
func TestDescribe(t *testing.T) {
	t.Parallel()
	log := slog.New(slog.DiscardHandler)
	server, err := devkms.Start(t.Context(), t.TempDir(), "", log)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	source, err := daemon.OpenKeys(t.Context(), daemon.KeyConfig{KMS: server.ConfigPath()}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	provider := source.Cache.Provider("dev").(*kmip.Provider)
	for _, c := range []struct {
		name   string
		end    func(context.Context, string) error
		state  string
		date   func(*listedKey) time.Time
		others []func(*listedKey) time.Time // must not be set
	}{
		{"active", func(context.Context, string) error { return nil }, "active", created, []func(*listedKey) time.Time{deactivated, destroyed}},
		{"deactivated", func(ctx context.Context, id string) error { return provider.Revoke(ctx, id, kmip.Superseded) }, "deactivated", deactivated, []func(*listedKey) time.Time{destroyed}},
		{"compromised", func(ctx context.Context, id string) error { return provider.Revoke(ctx, id, kmip.KeyCompromise) }, "compromised",
			func(k *listedKey) time.Time { return k.Compromised }, []func(*listedKey) time.Time{destroyed}},
	} {
		kek, err := provider.Create(t.Context(), c.name)
		if err != nil {
			t.Fatal(err)
		}
		k := listedKey{Provider: "dev", Identifier: kek.ID}
		kek.Wipe()
		if err := c.end(t.Context(), k.Identifier); err != nil {
			t.Fatal(err)
		}
		if err := k.describe(t.Context(), source); err != nil {
			t.Fatal(err)
		}
		if k.State != c.state || k.Name != c.name || c.date(&k).IsZero() {
			t.Errorf("%s: %+v", c.name, k)
		}
		for _, date := range c.others {
			if !date(&k).IsZero() {
				t.Errorf("%s: a date too many: %+v", c.name, k)
			}
		}
		if c.state != "active" && k.ends() != c.date(&k) {
			t.Errorf("%s: ends %v", c.name, k.ends())
		}
	}
}

func created(k *listedKey) time.Time     { return k.Created }
func deactivated(k *listedKey) time.Time { return k.Deactivated }
func destroyed(k *listedKey) time.Time   { return k.Destroyed }
