package main

import (
	"github.com/spf13/pflag"

	"vmcryptfs/fs/daemon"
)

// keyFlags are the flags for the source of keys.
type keyFlags struct{ daemon.KeyConfig }

// add adds the flags to f.
func (k *keyFlags) add(f *pflag.FlagSet) {
	f.StringVar(&k.KMS, "kms", "", "how to reach the key servers: a kms.toml (default $VMCRYPTFS_KMS, then /etc/vmcryptfs/kms.toml)")
	f.BoolVar(&k.Dev, "dev", false, "use the embedded development KMS: its keys lie on this host, in clear")
}

// words gives the flags as the user wrote them.
func (k keyFlags) words() []string {
	var words []string
	if k.KMS != "" {
		words = append(words, "--kms", k.KMS)
	}
	if k.Dev {
		words = append(words, "--dev")
	}
	return words
}
