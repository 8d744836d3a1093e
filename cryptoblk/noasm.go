//go:build !amd64 || purego

package cryptoblk

func assembly() []implementation { return nil }
