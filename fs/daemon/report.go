package daemon

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"vmcryptfs/advice"
)

// readyEnv names the descriptor on which a daemon sends the one report to the parent.
const readyEnv = "VMCRYPTFS_READY_FD"

// report is the daemon's one message: the mount serves, or the reason of the failure.
type report struct {
	Ready bool `json:"ready"`
	// Name is the name of the mount's log.
	Name string `json:"name,omitempty"`
	// Verified reports whether the seal of the settings is verified; then this host remembers the
	// settings.
	Verified bool `json:"verified,omitempty"`
	// Replaced reports whether the mount took the place of a dead mount.
	Replaced bool `json:"replaced,omitempty"`
	// Interrupted reports whether a signal ended the start.
	Interrupted bool     `json:"interrupted,omitempty"`
	Warnings    []string `json:"warnings,omitempty"`
	Failure     *Failure `json:"failure,omitempty"`
}

// Failure is an error of a daemon, in the words of the Program. A Failure crosses the pipe to the
// parent. The parent shows a Failure unchanged.
type Failure struct {
	Message string `json:"message"`
	Do      string `json:"do"`    // advice; empty: none
	Chain   string `json:"chain"` // the error with all causes
	Code    int    `json:"code"`  // exit code
}

// Error gives the message.
func (e *Failure) Error() string { return e.Message }

// readReport waits for the daemon's report.
func readReport(from io.Reader) (report, error) {
	var r report
	if err := json.NewDecoder(from).Decode(&r); err != nil {
		return report{}, err
	}
	if !r.Ready && r.Failure == nil {
		return report{}, errors.New("its report says nothing")
	}
	return r, nil
}

// openReport is where the parent waits, or nil when there is none.
func openReport() (*os.File, error) {
	value, ok := os.LookupEnv(readyEnv)
	if !ok {
		return nil, nil
	}
	fd, err := strconv.Atoi(value)
	if err != nil || fd < 3 {
		return nil, advice.Usagef("%s=%s is not a descriptor", readyEnv, value)
	}
	os.Unsetenv(readyEnv)
	unix.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), "report"), nil
}

// writeReport writes r and closes to.
func writeReport(to *os.File, r report) error {
	var b bytes.Buffer
	if err := json.NewEncoder(&b).Encode(r); err != nil {
		return err
	}
	_, err := to.Write(b.Bytes())
	return errors.Join(err, to.Close())
}
