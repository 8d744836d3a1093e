package layout

import "strings"

// rotatedLog stands for the names that isRotatedLog knows: R of docs/on-disk-format.md.
const rotatedLog = "*.logR"

// maxRotation bounds in bytes what a rotation adds: a time in nanoseconds and a number.
// Identifiers are longer.
const maxRotation = 32

// isRotatedLog knows the names that rotation makes of `NAME.log` by numbers and times:
// groups of digits, each after one separator. It knows less than that where the same name
// may be another file's:
//
//   - a core dump's (`core.%e.%p` of a program called log), and the dump that libvirt takes
//     of a guest called `NAME.log`;
//   - a disk's. libvirt puts a snapshot's name in the place of the disk's extension: of
//     `db.log.qcow2` there is `db.log.1795939200`, by the second, if nobody names it, and
//     `db.log.20261129`. So after a dot digits are a number of up to three (`*.log.N`), or
//     have a separator among them.
func isRotatedLog(base string) bool {
	at := strings.LastIndex(base, ".log")
	if at < 0 {
		return false
	}
	added := base[at+len(".log"):]
	return isRotation(added) && !isBareNumber(added) && !isDump(base)
}

// isRotation tells if added is a rotation's: `-`, `.` or `_` and a digit begin it, and
// each separator after that stands between two digits.
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

// isBareNumber tells if a rotation is a dot and digits, more than the three of `*.log.N`.
func isBareNumber(added string) bool {
	return added[0] == '.' && len(added) > len(".NNN") && !strings.ContainsAny(added[1:], "-_t:.")
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// guestDump are the names in libvirt's auto_dump_path: a guest's number, name and the time.
const guestDump = n1 + "*-*-" + n2 + n2 + "-" + n2 + "-" + n2 + "-" + n2 + ":" + n2 + ":" + n2

// isDump tells if base is one of the core dumps of the table, or of a guest's.
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
