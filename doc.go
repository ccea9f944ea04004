// Package gantry is the root of the Gantry container engine. It holds no code, only
// the tests of the module's own rules: which package may import which, and what no
// package may do. See docs/ARCHITECTURE.md.
package gantry
