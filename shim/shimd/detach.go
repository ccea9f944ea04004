package shimd

// detacher finds the detach sequence in a client's input, across reads. Bytes that
// may be the sequence's beginning are held back until that is decided.
type detacher struct {
	keys []byte
	next []int // of the Knuth-Morris-Pratt automaton: length of the border of keys[:i]
	at   int   // how many bytes of keys are held back
	out  []byte
}

func newDetacher(keys []byte) *detacher {
	if len(keys) == 0 {
		return nil
	}
	d := &detacher{keys: keys, next: make([]int, len(keys)+1)}
	for i, k := 1, 0; i < len(keys); i++ {
		for k > 0 && keys[i] != keys[k] {
			k = d.next[k]
		}
		if keys[i] == keys[k] {
			k++
		}
		d.next[i+1] = k
	}
	return d
}

// feed returns what of the held back and the new bytes is input, and whether the
// sequence came. What it returns is valid until the next call; b is not kept.
func (d *detacher) feed(b []byte) (input []byte, detach bool) {
	if d == nil {
		return b, false
	}
	d.out = d.out[:0]
	for _, c := range b {
		for d.at > 0 && c != d.keys[d.at] {
			// The held bytes up to the longest border are input after all.
			border := d.next[d.at]
			d.out = append(d.out, d.keys[:d.at-border]...)
			d.at = border
		}
		if c != d.keys[d.at] {
			d.out = append(d.out, c)
			continue
		}
		if d.at++; d.at == len(d.keys) {
			d.at = 0
			return d.out, true
		}
	}
	return d.out, false
}

// rest gives back what is held at the end of the input.
func (d *detacher) rest() []byte {
	if d == nil {
		return nil
	}
	b := d.keys[:d.at]
	d.at = 0
	return b
}
