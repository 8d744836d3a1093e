package admin

import (
	"fmt"
	"time"

	"vmcryptfs/keys"
	"vmcryptfs/words"
)

// ServerText describes the state of a key server and the time of that state: a state seen minutes
// ago may have changed.
func ServerText(h keys.ServerHealth, now time.Time) string {
	ago := func(t time.Time) string { return words.Age(now.Sub(t)) }
	switch {
	case h.Checked.IsZero():
		return "unknown: not asked yet"
	case h.State == keys.ServerOK:
		return fmt.Sprintf("ok, KMIP %s, %s ago", h.Version, ago(h.Checked))
	case h.State == keys.ServerDown:
		return fmt.Sprintf("down for %s, last asked %s ago: %s", ago(h.Since), ago(h.Checked), h.LastError)
	case h.OK:
		return fmt.Sprintf("unknown for %s: it answered then, and was not asked since", ago(h.Since))
	default:
		return fmt.Sprintf("unknown for %s: it was down then (%s), and was not asked since", ago(h.Since), h.LastError)
	}
}

// KeyErrorText names the key that a server did not give, and the reason. A server that answers may
// still hold a wrong key.
func KeyErrorText(k keys.KeyError, now time.Time) string {
	return words.Line(fmt.Sprintf("did not give key %s %s ago: %s", words.Printable(k.Key), words.Age(now.Sub(k.Since)), k.Error))
}

// CountedText says how old the counts are, and nothing of fresh ones.
func (f Files) CountedText(now time.Time) string {
	age := now.Sub(f.CountedAt)
	switch {
	case f.CountedAt.IsZero():
		return fmt.Sprintf(" (counting: %d files so far)", f.Encrypted+f.Clear+f.Empty+f.Unencrypted+f.Damaged)
	case !f.Complete:
		return " (and more: not all could be counted, " + words.Age(age) + " ago)"
	case age >= freshCount:
		return " (counted " + words.Age(age) + " ago)"
	default:
		return ""
	}
}

// freshCount is the age from which a text gives the age of counts.
const freshCount = 10 * time.Second
