package transport

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// HelperError reports that fusermount3 does not mount, with the reason in fusermount3's words.
type HelperError struct{ Reason string }

func (e *HelperError) Error() string { return "fusermount3: " + e.Reason }

// mostReason bounds the kept part of the helper's words, in bytes.
const mostReason = 512

// helperOptions returns the mount's options in the syntax of fusermount3(1).
func (o Options) helperOptions() string {
	list := append([]string{"default_permissions"}, o.Extra...)
	if o.ReadOnly {
		list = append(list, "ro")
	}
	if o.AllowOther {
		list = append(list, "allow_other")
	}
	list = append(list, "fsname="+o.FsName, "subtype=vmcryptfs", fmt.Sprintf("max_read=%d", maxWrite))
	escape := strings.NewReplacer(`\`, `\\`, `,`, `\,`)
	for i := range list {
		list[i] = escape.Replace(list[i])
	}
	return strings.Join(list, ",")
}

// connectByHelper makes fusermount3 mount, for users other than root, and returns the descriptor
// of the connection. A HelperError has the reason of a failure. (go-fuse's own way loses the
// reason.)
func connectByHelper(mountpoint string, o Options) (fuse int, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("socket for fusermount3: %w", err)
	}
	defer unix.Close(pair[0])
	theirs := os.NewFile(uintptr(pair[1]), "fusermount3")
	defer theirs.Close()
	var said bytes.Buffer
	helper := exec.Command("fusermount3", "-o", o.helperOptions(), "--", mountpoint)
	helper.Env = append(os.Environ(), "_FUSE_COMMFD=3")
	helper.ExtraFiles = []*os.File{theirs}
	helper.Stderr = &said
	if err := helper.Run(); err != nil {
		return -1, helperFailure(said.Bytes(), err)
	}
	theirs.Close() // else a silent helper would keep this process waiting
	return receiveDescriptor(pair[0])
}

// helperFailure takes the reason from the helper's words, or the command's error if there are
// none.
func helperFailure(said []byte, err error) error {
	if errors.Is(err, exec.ErrNotFound) {
		return &HelperError{"it is not there, and mounts for users other than root; install the package fuse3"}
	}
	line := strings.TrimSpace(string(said[:min(len(said), mostReason)]))
	line, _, _ = strings.Cut(line, "\n")
	line = strings.TrimPrefix(line, "fusermount3: ")
	if line == "" {
		line = err.Error()
	}
	return &HelperError{line}
}

// receiveDescriptor receives the one descriptor sent over a socket (unix(7), SCM_RIGHTS).
func receiveDescriptor(socket int) (int, error) {
	control := make([]byte, unix.CmsgSpace(4))
	var n int
	err := uninterrupted(func() (err error) {
		_, n, _, _, err = unix.Recvmsg(socket, make([]byte, 1), control, unix.MSG_CMSG_CLOEXEC)
		return err
	})
	if err != nil {
		return -1, fmt.Errorf("descriptor from fusermount3: %w", err)
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err == nil && len(messages) == 1 {
		var fds []int
		if fds, err = unix.ParseUnixRights(&messages[0]); err == nil && len(fds) == 1 {
			return fds[0], nil
		}
	}
	return -1, errors.Join(&HelperError{"it gave no descriptor of the mount"}, err)
}
