package criu

import (
	"errors"
	"math"
)

// The part of protobuf's wire format that criu's messages need: numbers and byte
// strings. github.com/checkpoint-restore/go-criu would bring google.golang.org/protobuf,
// 1.5 MB and 0.4 ms in every process of the runtime, which is over its limit.

const (
	wireVarint = 0
	wireFixed8 = 1
	wireBytes  = 2
	wireFixed4 = 5
)

// message is one that is being written.
type message []byte

func (m *message) varint(v uint64) {
	for v >= 0x80 {
		*m = append(*m, byte(v)|0x80)
		v >>= 7
	}
	*m = append(*m, byte(v))
}

func (m *message) number(field int, v int64) {
	m.varint(uint64(field)<<3 | wireVarint)
	m.varint(uint64(v)) // negative ones take ten bytes, as int32 does in protobuf
}

// flag writes a bool that is true; false is what a missing one means.
func (m *message) flag(field int, v bool) {
	if v {
		m.number(field, 1)
	}
}

func (m *message) text(field int, s string) {
	if s == "" {
		return
	}
	m.varint(uint64(field)<<3 | wireBytes)
	m.varint(uint64(len(s)))
	*m = append(*m, s...)
}

func (m *message) sub(field int, s message) {
	m.varint(uint64(field)<<3 | wireBytes)
	m.varint(uint64(len(s)))
	*m = append(*m, s...)
}

var errWire = errors.New("an answer of criu's cannot be read")

// fields calls f for every field of a message: with v for numbers, with b for strings
// and messages, which is part of in.
func fields(in []byte, f func(field int, v uint64, b []byte) error) error {
	for len(in) > 0 {
		tag, rest, err := varint(in)
		if err != nil {
			return err
		}
		if tag>>3 == 0 || tag>>3 > math.MaxInt32 {
			return errWire
		}
		var v uint64
		var b []byte
		switch tag & 7 {
		case wireVarint:
			v, rest, err = varint(rest)
		case wireBytes:
			if v, rest, err = varint(rest); err == nil && v > uint64(len(rest)) {
				err = errWire
			}
			if err == nil {
				b, rest = rest[:v], rest[v:]
			}
		case wireFixed8, wireFixed4: // none of ours: skipped
			n := 8
			if tag&7 == wireFixed4 {
				n = 4
			}
			if len(rest) < n {
				return errWire
			}
			rest = rest[n:]
		default:
			err = errWire
		}
		if err != nil {
			return err
		}
		if err := f(int(tag>>3), v, b); err != nil {
			return err
		}
		in = rest
	}
	return nil
}

func varint(in []byte) (v uint64, rest []byte, err error) {
	for i, b := range in {
		if i == 10 {
			break
		}
		v |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			return v, in[i+1:], nil
		}
	}
	return 0, nil, errWire
}
