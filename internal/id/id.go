// Package id makes and checks the identifiers of containers, execs and networks.
package id

import (
	"crypto/rand"
	"encoding/hex"
)

// Len is the length of a full identifier in hexadecimal digits.
const Len = 64

// ShortLen is the length people see.
const ShortLen = 12

// New returns 32 random bytes in hexadecimal. As Docker's, the first 12 digits
// are never all decimal, because a host name must not look like a number.
func New() string {
	for {
		var b [Len / 2]byte
		rand.Read(b[:])
		s := hex.EncodeToString(b[:])
		if !allDecimal(s[:ShortLen]) {
			return s
		}
	}
}

// Short cuts an identifier (with or without "algorithm:") to what people see.
func Short(s string) string {
	for i := range len(s) {
		if s[i] == ':' {
			s = s[i+1:]
			break
		}
	}
	if len(s) > ShortLen {
		return s[:ShortLen]
	}
	return s
}

// Valid reports whether s is a full identifier.
func Valid(s string) bool {
	if len(s) != Len {
		return false
	}
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func allDecimal(s string) bool {
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}
