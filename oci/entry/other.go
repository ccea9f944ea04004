//go:build !amd64 && !arm64

// Package entry is empty here: the program begins as any other.
package entry
