package vm

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// monitor speaks QMP with one QEMU. A monitor is for one goroutine.
type monitor struct {
	conn    net.Conn
	decoder *json.Decoder
	events  []message // not yet waited for
}

// message is whatever QEMU sends.
type message struct {
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Desc string `json:"desc"`
	} `json:"error"`
	Event string `json:"event"`
	Data  struct {
		Device string `json:"device"`
		Error  string `json:"error"`
		ID     string `json:"id"`
		Status string `json:"status"`
	} `json:"data"`
}

// newMonitor returns a monitor, and the monitor's far end for QEMU to inherit.
func newMonitor() (*monitor, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socket pair: %w", err)
	}
	near, far := os.NewFile(uintptr(fds[0]), "qmp"), os.NewFile(uintptr(fds[1]), "qmp of QEMU")
	conn, err := net.FileConn(near)
	if closeErr := near.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return nil, nil, fmt.Errorf("monitor: %w", err)
	}
	return &monitor{conn: conn, decoder: json.NewDecoder(conn)}, far, nil
}

func (q *monitor) close() { _ = q.conn.Close() }

// greet is the handshake.
func (q *monitor) greet() error {
	if _, err := q.next(); err != nil {
		return fmt.Errorf("QEMU's monitor: %w", err)
	}
	_, err := q.execute("qmp_capabilities", nil)
	return err
}

func (q *monitor) next() (m message, err error) {
	if err = q.conn.SetReadDeadline(time.Now().Add(patience)); err == nil {
		err = q.decoder.Decode(&m)
	}
	return m, err
}

// arguments of a command.
type arguments map[string]any

func (q *monitor) execute(command string, a arguments) (json.RawMessage, error) {
	request := map[string]any{"execute": command}
	if a != nil {
		request["arguments"] = a
	}
	if err := json.NewEncoder(q.conn).Encode(request); err != nil {
		return nil, fmt.Errorf("%s: %w", command, err)
	}
	for {
		m, err := q.next()
		switch {
		case err != nil:
			return nil, fmt.Errorf("%s: %w", command, err)
		case m.Event != "":
			q.events = append(q.events, m)
		case m.Error != nil:
			return nil, fmt.Errorf("%s: %s", command, m.Error.Desc)
		default:
			return m.Return, nil
		}
	}
}

// await returns the next event accepted by ok; earlier events stay.
func (q *monitor) await(ok func(message) bool) (message, error) {
	for {
		if i := slices.IndexFunc(q.events, ok); i >= 0 {
			m := q.events[i]
			q.events = slices.Delete(q.events, i, i+1)
			return m, nil
		}
		m, err := q.next()
		if err != nil {
			return m, err
		}
		q.events = append(q.events, m)
	}
}

// command is a QMP command, which must succeed.
func (m *machine) command(name string, a arguments) {
	m.t.Helper()
	if _, err := m.qmp.execute(name, a); err != nil {
		m.t.Fatal(err)
	}
}

// query asks QEMU and stores the result in the value that answer points to.
func (m *machine) query(name string, answer any) {
	m.t.Helper()
	text, err := m.qmp.execute(name, nil)
	if err == nil {
		err = json.Unmarshal(text, answer)
	}
	if err != nil {
		m.t.Fatalf("%s: %v", name, err)
	}
}

// event waits for an event with the name, and of the device if one is given.
func (m *machine) event(name, device string) message {
	m.t.Helper()
	got, err := m.qmp.await(func(e message) bool {
		return e.Event == name && (device == "" || e.Data.Device == device)
	})
	if err != nil {
		m.t.Fatalf("event %s: %v", name, err)
	}
	if got.Data.Error != "" {
		m.t.Fatalf("event %s of %s: %s", name, device, got.Data.Error)
	}
	return got
}

// job runs a command that starts a job, and waits for the job, which must succeed.
func (m *machine) job(name string, a arguments) {
	m.t.Helper()
	id := a["job-id"].(string)
	m.command(name, a)
	m.concluded(id)
	m.command("job-dismiss", arguments{"id": id})
}

func (m *machine) concluded(id string) {
	m.t.Helper()
	_, err := m.qmp.await(func(e message) bool {
		return e.Event == "JOB_STATUS_CHANGE" && e.Data.ID == id && e.Data.Status == "concluded"
	})
	if err != nil {
		m.t.Fatalf("job %s: %v", id, err)
	}
	var jobs []struct{ ID, Error string }
	m.query("query-jobs", &jobs)
	for _, j := range jobs {
		if j.ID == id && j.Error != "" {
			m.t.Fatalf("job %s: %s", id, j.Error)
		}
	}
}
