// Package advice holds the errors on which a person can act: an Error carries advice, and a
// UsageError marks a mistake in the person's input.
//
// The package promises that both types unwrap: errors.Is and errors.As find the same errors with
// advice as without. The package knows nothing of causes, chooses no exit code and prints nothing:
// package main looks for both types and prints the rest. The package imports nothing of the
// program, so every other package may return an Error. All values are immutable and safe for
// concurrent use.
package advice
