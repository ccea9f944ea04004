//go:build !amd64 && !arm64

// Package entry does nothing here: the program begins as any other.
package entry

// Settle does nothing.
func Settle() {}
