package main

import (
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"

	"vmcryptfs/advice"
	"vmcryptfs/fs/daemon"
	"vmcryptfs/words"
)

// longest is the length in bytes from which a message leaves causes to the chain.
const longest = 200

// saying is an error for people: the message, the advice, and the chain of causes. Each is one
// line.
type saying struct{ what, do, chain string }

// say finds the words for err. The advice comes from the first of: an advice.Error; the table of
// advices; the error's own text after the last semicolon, where packages put advice.
func say(err error) saying {
	if failure, ok := errors.AsType[*daemon.Failure](err); ok {
		return saying{failure.Message, failure.Do, failure.Chain}
	}
	s := saying{chain: words.Line(err.Error())}
	s.what = s.chain
	if a := adviceFor(err); a != nil {
		s.do = a.do
		if a.brief && len(s.what) > longest {
			s.what = upTo(s.chain, words.Line(a.err.Error()))
		}
	} else if at := strings.LastIndex(err.Error(), "; "); at > 0 && !strings.Contains(err.Error(), "\n") {
		s.what, s.do = words.Line(err.Error()[:at]), err.Error()[at+2:]
	} else if _, usage := errors.AsType[*advice.UsageError](err); usage {
		s.do = "vmcryptfs help tells how each command is called"
	} else {
		s.do = "look into docs/operations.md, and into the log of the mount if there is one"
	}
	s.do = upperFirst(words.Line(s.do))
	return s
}

// String is the two sentences. A command to be copied ends the line.
func (s saying) String() string {
	if s.do == "" {
		return s.what
	}
	return strings.TrimRight(s.what, ".") + ". " + s.do
}

// upTo cuts text after words. The causes follow words and stand in the chain.
func upTo(text, words string) string {
	if at := strings.Index(text, words); at >= 0 {
		return text[:at+len(words)]
	}
	return text
}

// upperFirst starts a sentence with a capital. A command or a path at the start stays as written.
func upperFirst(s string) string {
	if word, _, _ := strings.Cut(s, " "); word == "vmcryptfs" || strings.Contains(word, "/") {
		return s
	}
	r, n := utf8.DecodeRuneInString(s)
	return string(unicode.ToUpper(r)) + s[n:]
}
