package main

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"

	"vmcryptfs/advice"
	"vmcryptfs/cryptoblk"
	"vmcryptfs/fs/daemon"
)

// version prints the version of the program, and the cipher implementation on this host.
func (p *program) version(_ context.Context, args []string) error {
	f := p.flags("version")
	asJSON := f.Bool("json", false, "print JSON")
	if _, err := p.parse(f, args, "[--json]", 0, 0); err != nil {
		return err
	}
	if err := cryptoblk.CheckImplementation(); err != nil {
		return advice.Usage(err)
	}
	v := struct {
		Version     string `json:"version"`
		Go          string `json:"go"`
		Platform    string `json:"platform"`
		Format      int    `json:"format"` // on disk
		Cipher      string `json:"cipher"` // implementation
		HardwareAES bool   `json:"hardware_aes"`
	}{daemon.Version(), runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH, 1, cryptoblk.Implementation(), cryptoblk.HardwareAES()}
	if *asJSON {
		return p.printJSON(v)
	}
	fmt.Fprintf(p.stdout, "vmcryptfs %s (%s, %s)\nformat    %d\ncipher    XTS-AES-256, %s\n", v.Version, v.Go, v.Platform, v.Format, v.Cipher)
	if !v.HardwareAES {
		fmt.Fprintln(p.stdout, "warning   this CPU has no AES instructions: encryption is slow")
	}
	return nil
}

// printJSON prints v for programs.
func (p *program) printJSON(v any) error {
	out := json.NewEncoder(p.stdout)
	out.SetIndent("", "  ")
	out.SetEscapeHTML(false)
	return out.Encode(v)
}
