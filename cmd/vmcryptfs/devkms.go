package main

import (
	"context"
	"errors"
	"fmt"
	"os/signal"

	"golang.org/x/sys/unix"

	"vmcryptfs/advice"
	"vmcryptfs/fs/daemon"
	"vmcryptfs/keys"
	"vmcryptfs/keys/devkms"
)

// devkms serves the development KMS until SIGTERM or SIGINT.
func (p *program) devkms(ctx context.Context, args []string) error {
	const arguments = "serve --dir DIR [--listen ADDR]"
	f := p.flags("devkms")
	dir := f.String("dir", "", "where keys and certificates lie; made if missing (default $VMCRYPTFS_DEVKMS, then /var/lib/vmcryptfs/devkms)")
	listen := f.String("listen", "", "a loopback address and port (default: 127.0.0.1, as last time or a free port)")
	args, err := p.parse(f, args, arguments, 1, 1)
	if err != nil {
		return err
	}
	if err := daemon.CheckFIPS(); err != nil {
		return err
	}
	if args[0] != "serve" {
		return subcommand("devkms", args[0], arguments, "serve")
	}
	if *dir == "" {
		if *dir, err = daemon.DevKMSDir(); err != nil {
			return err
		}
	}
	if err := keys.HardenProcess(); err != nil {
		return fmt.Errorf("protect the memory for keys: %w", err)
	}
	ctx, stop := signal.NotifyContext(ctx, unix.SIGTERM, unix.SIGINT)
	defer stop()
	log, endLog := daemon.NewLog(p.stderr)
	defer endLog()
	server, err := devkms.Start(ctx, *dir, *listen, log)
	if errors.Is(err, devkms.ErrAddress) {
		return advice.Usage(err)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(p.stdout, "development KMS on %s; clients use %s\n", server.Addr(), server.ConfigPath())
	<-ctx.Done()
	return server.Close()
}
