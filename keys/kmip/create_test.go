package kmip

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/gemalto/kmip-go/kmip14"
	"github.com/gemalto/kmip-go/kmip20"

	"vmcryptfs/keys"
	"vmcryptfs/keys/kmip/wire"
)

func TestLabel(t *testing.T) {
	t.Parallel()
	const datastore = "6a1f2b3c-4d5e-4f60-8a7b-9c0d1e2f3a4b"
	if got, want := Label(datastore, 12), "vmcryptfs-"+datastore+"-12"; got != want {
		t.Errorf("label %q, want %q", got, want)
	}
	for label, want := range map[string]string{
		Label(datastore, 1): datastore, PlaceLabel(datastore, "0b0c0d0e", 7): datastore, "vmcryptfs-x": "", "vmcryptfs--1": "", "another name": "", "": "", "vmcryptfs-": "",
	} {
		if got := labelDatastore(label); got != want {
			t.Errorf("datastore in %q is %q, want %q", label, got, want)
		}
	}
}

// TestTemplates: every template asks for a named AES-256 key with a usage; the custom
// attribute is in the first one alone, and only where there is a datastore.
func TestTemplates(t *testing.T) {
	t.Parallel()
	for label, want := range map[string]int{Label("d", 1): 3, "a key": 2} {
		all := templates(label)
		if len(all) != want {
			t.Errorf("%q: %d templates, want %d", label, len(all), want)
		}
		for i, template := range all {
			var names []string
			for _, a := range template {
				names = append(names, a.Name)
			}
			expected := "Cryptographic Algorithm,Cryptographic Length,Cryptographic Usage Mask,Name"
			if want == 3 && i == 0 {
				expected += "," + DatastoreAttribute
			}
			if got := strings.Join(names, ","); got != expected {
				t.Errorf("%q: template %d has %s, want %s", label, i, got, expected)
			}
		}
	}
}

// TestResults: the meaning of a server's answer for the caller, and for the next server.
func TestResults(t *testing.T) {
	t.Parallel()
	c := newCluster(Config{Name: "p", Servers: []string{"kms:1"}}, nil, discard())
	defer c.close()
	failed := func(reason kmip20.ResultReason) error {
		return &result{kmip14.ResultStatusOperationFailed, reason, "words"}
	}
	for _, test := range []struct {
		name                 string
		err                  error
		kind                 error
		final, suspect, lost bool
	}{
		{"not found", failed(kmip20.ResultReasonItemNotFound), keys.ErrNotFound, false, false, false},
		{"not found, 2.0", failed(kmip20.ResultReasonObjectNotFound), keys.ErrNotFound, false, false, false},
		{"denied", failed(kmip20.ResultReasonPermissionDenied), keys.ErrRefused, false, false, false},
		{"not who it says", failed(kmip20.ResultReasonAuthenticationNotSuccessful), keys.ErrRefused, false, false, false},
		{"not supported", failed(kmip20.ResultReasonOperationNotSupported), keys.ErrRefused, false, false, false},
		{"invalid field", failed(kmip20.ResultReasonInvalidField), keys.ErrRefused, false, false, false},
		{"name taken", failed(kmip20.ResultReasonNonUniqueNameAttribute), keys.ErrRefused, true, false, false},
		{"destroyed, 2.0", failed(kmip20.ResultReasonObjectDestroyed), keys.ErrKeyState, true, false, false},
		{"archived", failed(kmip20.ResultReasonObjectArchived), keys.ErrKeyState, false, false, false},
		{"lifecycle, 2.0", failed(kmip20.ResultReasonWrongKeyLifecycleState), keys.ErrKeyState, false, false, false},
		{"general failure", failed(kmip20.ResultReasonGeneralFailure), keys.ErrRefused, false, false, false},
		{"internal error, 2.0", failed(kmip20.ResultReasonInternalServerError), keys.ErrRefused, false, false, false},
		{"later", &result{status: kmip14.ResultStatusOperationPending}, keys.ErrRefused, false, false, false},
		{"no reason at all", &result{status: kmip14.ResultStatusOperationFailed}, keys.ErrRefused, false, false, false},
		{"no session", &openError{errors.New("connect: refused")}, keys.ErrUnreachable, false, true, false},
		{"no session, certificate", &openError{&classified{keys.ErrRefused, errors.New("bad certificate")}}, keys.ErrRefused, false, true, false},
		{"session lost", &lostError{&classified{keys.ErrUnreachable, errors.New("reset")}}, keys.ErrUnreachable, false, true, true},
		{"malformed", wire.Malformed("an item"), keys.ErrUnreachable, false, false, true},
		{"128 bits", fmt.Errorf("%w: it has 128 bits", keys.ErrKeyLength), keys.ErrKeyLength, false, false, false},
		{"another key", fmt.Errorf("%w: its check value", keys.ErrWrongKey), keys.ErrWrongKey, false, false, false},
		{"pre-active", &stateError{state: keys.PreActive}, keys.ErrKeyState, false, false, false},
		{"destroyed", &stateError{state: keys.Destroyed}, keys.ErrKeyState, true, false, false},
		{"destroyed compromised", &stateError{keys.DestroyedCompromised, failed(kmip20.ResultReasonPermissionDenied)}, keys.ErrKeyState, true, false, false},
		{"no memory here", &hostError{errors.New("cannot allocate memory")}, errHost, true, false, false},
	} {
		e := c.failure(c.servers[0], attempt{operation: "Get"}, test.err)
		if e.Kind != test.kind || e.final != test.final || e.suspect != test.suspect || e.lost != test.lost {
			t.Errorf("%s: %v, final %v, suspect %v, lost %v", test.name, e.Kind, e.final, e.suspect, e.lost)
		}
		if !errors.Is(e, test.kind) || !errors.Is(e, test.err) || !strings.HasPrefix(e.Error(), "kms:1: Get: ") {
			t.Errorf("%s: %v", test.name, e)
		}
		if n := strings.Count(e.Error(), test.kind.Error()); n != 1 {
			t.Errorf("%s: %q says it %d times", test.name, e, n)
		}
	}
	if e := c.failure(c.servers[0], attempt{}, nil); e != nil {
		t.Errorf("of no error: %v", e)
	}
}

// TestServersWords: a server's message is quoted, short, and cannot disturb a terminal.
func TestServersWords(t *testing.T) {
	t.Parallel()
	r := &result{message: "a\x1b[31m\nb\u009b" + strings.Repeat("é", 500)}
	said := r.Error()
	if len(said) > 300 || strings.ContainsAny(said, "\x1b\n\u009b") || !strings.Contains(said, "…") {
		t.Errorf("%q", said)
	}
}
