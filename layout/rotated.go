package layout

import "strings"

// rotatedLog stands for the names accepted by isRotatedLog: R of docs/on-disk-format.md.
const rotatedLog = "*.logR"

// maxRotation bounds in bytes the part added by a rotation: a time in nanoseconds and a number.
// Identifiers are longer.
const maxRotation = 32

// isRotatedLog reports whether base is a name made by rotating `NAME.log` by numbers and times:
// groups of digits, each after one separator. Names that may also be another file's are left out:
//
//   - a core dump's (`core.%e.%p` of a program called log), and the dump that libvirt takes
//     of a guest called `NAME.log`;
//   - a disk's. libvirt puts a snapshot's name in place of the disk's extension: a snapshot of
//     `db.log.qcow2` is `db.log.1795939200`, by the second, if nobody names the snapshot, and
//     `db.log.20261129`. So digits after a dot are a number of up to three (`*.log.N`), or
//     contain a separator.
func isRotatedLog(base string) bool {
	at := strings.LastIndex(base, ".log")
	if at < 0 {
		return false
	}
	added := base[at+len(".log"):]
	return isRotation(added) && !isBareNumber(added) && !isDump(base)
}

// isRotation reports whether added has the form of a rotation: `-`, `.` or `_` and a digit first,
// and each later separator between two digits.
func isRotation(added string) bool {
	if len(added) < 2 || len(added) > maxRotation || !strings.Contains("-._", added[:1]) {
		return false
	}
	afterDigit := true
	for _, c := range []byte(added) {
		digit := isDigit(c)
		if !digit && !(afterDigit && strings.IndexByte("-_t:.", c) >= 0) {
			return false
		}
		afterDigit = digit
	}
	return afterDigit
}

// isBareNumber reports whether a rotation is a dot and more than three digits; `*.log.N` has up
// to three.
func isBareNumber(added string) bool {
	return added[0] == '.' && len(added) > len(".NNN") && !strings.ContainsAny(added[1:], "-_t:.")
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// guestDump are the names in libvirt's auto_dump_path: a guest's number, name and the time.
const guestDump = n1 + "*-*-" + n2 + n2 + "-" + n2 + "-" + n2 + "-" + n2 + ":" + n2 + ":" + n2

// isDump reports whether base is a core dump by the table, or the dump of a guest.
func isDump(base string) bool {
	if glob(guestDump, base) {
		return true
	}
	for i := range builtin {
		if r := &builtin[i]; r.about == aboutDumps {
			_, ok := r.match(base)
			return ok
		}
	}
	return false
}
