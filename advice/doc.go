// Package advice holds the errors of this program that are for a person to act on: an
// Error says what to do about what went wrong, a UsageError says that the mistake lies in
// what the person gave.
//
// The package promises that both unwrap: whatever errors.Is and errors.As find in an error
// they find in it with advice, too. It knows nothing of what went wrong, chooses no exit
// code and prints nothing: package main looks for these types and says the rest. It
// imports nothing of this program, so that every other package may return its errors. All
// values are immutable and safe for concurrent use.
package advice
