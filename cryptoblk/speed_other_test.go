//go:build bench && (!amd64 || purego)

package cryptoblk

type bareRounds struct {
	name  string
	bytes int
	pass  func(int)
}

func roundsAlone() []bareRounds { return nil }
