package admin

import (
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestPlainWords: an error of the connection has words with a meaning for the user of a command.
func TestPlainWords(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer func(net.Conn)
		want   string
	}{
		"ends":            {func(c net.Conn) {}, `: the daemon ended before it answered$`},
		"ends in between": {func(c net.Conn) { write(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"open") }, `: its answer is not understood: the daemon ended before it answered$`},
		"another version": {func(c net.Conn) { write(c, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n") }, `: the daemon does not know /v1/lock, it is of another version; mount again`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			l, err := net.Listen("unix", filepath.Join(dir, "x"+socketSuffix))
			if err != nil {
				t.Fatal(err)
			}
			served := make(chan struct{})
			go func() {
				defer close(served)
				conn, err := l.Accept()
				if err != nil {
					return
				}
				defer conn.Close()
				_, _ = conn.Read(make([]byte, 4096)) // the request
				c.answer(conn)
			}()
			_, err = NewClient(dir, "x").Lock(t.Context())
			if err == nil || !regexp.MustCompile(c.want).MatchString(err.Error()) {
				t.Errorf("%v, want %s", err, c.want)
			}
			// The directory's name has digits by chance.
			if err != nil && regexp.MustCompile(`(?i)http|`+http.MethodPost+`|eof|404`).MatchString(strings.ReplaceAll(err.Error(), dir, "")) {
				t.Errorf("words of HTTP: %v", err)
			}
			l.Close()
			<-served
		})
	}
}

func write(c net.Conn, text string) { _, _ = c.Write([]byte(text)) }
