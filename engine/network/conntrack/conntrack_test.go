package conntrack

import "testing"

// What the kernel sends is decoded without trust in its shape.
func FuzzParse(f *testing.F) {
	body, err := filter(53)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(body)
	f.Add([]byte{8, 0, 3, 0, 0, 0, 0, 32})
	f.Fuzz(func(t *testing.T, b []byte) {
		if fl, ok := parse(b); ok && !fl.Src.Addr().IsValid() && fl.Src.IsValid() {
			t.Error("valid without an address")
		}
	})
}
