//go:build !amd64 && !arm64

package entry

// slack is not changed here: the program begins as any other.
const slack uint64 = 0
