package main

import (
	"context"
	"fmt"

	"vmcryptfs/fs/daemon"
)

// leaveGone is umount --lazy for a mount already gone from path.
func leaveGone(ctx context.Context, path string, notMounted error) error {
	client, _, err := daemon.FindGone(ctx, path)
	if err != nil || client == nil {
		return notMounted
	}
	if s, err := client.Status(ctx); err != nil {
		return fmt.Errorf("umount --lazy %s: %w", path, err)
	} else if !s.Gone { // mount --move
		return notMounted
	}
	if err := client.Leave(ctx); err != nil {
		return fmt.Errorf("umount --lazy %s: %w", path, err)
	}
	return nil
}
