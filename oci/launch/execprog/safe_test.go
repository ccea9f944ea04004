package execprog

import "testing"

func TestOwnPidNSWithoutTracers(t *testing.T) {
	for s, want := range map[string]bool{
		"NSpid:\t712\t1\nCapBnd:\t00000000a80425fb\n":      true,
		"CapBnd:\t0000000000000000\nNSpid:\t712\t5\t1\n":   true,
		"NSpid:\t1\nCapBnd:\t00000000a80425fb\n":           false, // ours
		"NSpid:\t712\t7\nCapBnd:\t00000000a80425fb\n":      false, // joined
		"NSpid:\t712\t1\nCapBnd:\t00000000a80c25fb\n":      false, // ptrace
		"NSpid:\t712\t1\nCapBnd:\t000001ffffffffff\n":      false,
		"NSpid:\t712\t1\nCapBnd:\tzz\n":                    false,
		"NSpid:\t712\t1\n":                                 false,
		"":                                                 false,
		"Name:\tNSpid:\t2\t1\nCapBnd:\t00000000a80425fb\n": false,
	} {
		t.Run(s, func(t *testing.T) {
			if got := ownPidNSWithoutTracers([]byte(s)); got != want {
				t.Errorf("%q: %v", s, got)
			}
		})
	}
}
