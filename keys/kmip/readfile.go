package kmip

import (
	"fmt"
	"io"
	"os"
	"syscall"
)

// mostText bounds a file of text that is read whole, in bytes.
const mostText = 1 << 20

// ReadText reads a regular file, or what a symbolic link leads to, of 1 MiB at most. It
// waits for no pipe, and sees no end of a device. The caller may wipe it.
func ReadText(path string) ([]byte, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file: put one there", path)
	}
	if info.Size() > mostText {
		return nil, fmt.Errorf("%s is longer than %d bytes: is it the right file?", path, mostText)
	}
	// Read at once into what is long enough: a copy in a buffer that grew nobody could wipe.
	text := make([]byte, info.Size()+1)
	n, err := io.ReadFull(file, text)
	if err == nil { // it grew meanwhile
		clear(text)
		return nil, fmt.Errorf("%s is being written: try again", path)
	}
	if err != io.EOF && err != io.ErrUnexpectedEOF {
		clear(text)
		return nil, err
	}
	return text[:n], nil
}
