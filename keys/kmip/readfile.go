package kmip

import (
	"fmt"
	"io"
	"os"
	"syscall"
)

// mostText bounds in bytes a text file read as a whole.
const mostText = 1 << 20

// ReadText reads a regular file of at most 1 MiB, or the target of a symbolic link. ReadText
// never waits for a pipe, and never reads an endless device. The caller may wipe the text.
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
	// One buffer of sufficient size: nobody could wipe the copies left by a growing buffer.
	text := make([]byte, info.Size()+1)
	n, err := io.ReadFull(file, text)
	if err == nil { // the file grew meanwhile
		clear(text)
		return nil, fmt.Errorf("%s is being written: try again", path)
	}
	if err != io.EOF && err != io.ErrUnexpectedEOF {
		clear(text)
		return nil, err
	}
	return text[:n], nil
}
