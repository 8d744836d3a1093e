//go:build bench && !purego

package cryptoblk

import "vmcryptfs/cryptoblk/internal/rounds"

// bareRounds is AES without XTS at an implementation's width.
type bareRounds struct {
	name  string
	bytes int // of each pass
	pass  func(int)
}

// roundsAlone lists the rounds of the implementations for this CPU.
func roundsAlone() []bareRounds {
	const passes = 200
	var keys [240]byte
	all := map[string]bareRounds{
		"aesni":   {"aesni", passes * rounds.Bytes128, func(int) { rounds.AESNI(passes, &keys) }},
		"vaes":    {"vaes", passes * rounds.Bytes256, func(int) { rounds.VAES(passes, &keys) }},
		"vaes512": {"vaes512", passes * rounds.Bytes512, func(int) { rounds.VAES512(passes, &keys) }},
	}
	var mine []bareRounds
	for _, impl := range assembly() {
		mine = append(mine, all[impl.name])
	}
	return mine
}
