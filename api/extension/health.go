// Package extension holds what the engine offers beyond Docker's API: annotations of a
// container that ask for behavior of ours, so that Docker's own client can ask for it too, and
// the request that runs a container in one round trip (RunPath).
package extension

import "strings"

// HealthOnFailure is the annotation that says what happens to a container that becomes unhealthy.
const HealthOnFailure = "gantry.health-on-failure"

// Action is what happens to such a container.
type Action string

// The actions. A container that is killed has ended as if by itself: its restart policy decides what follows.
const (
	Nothing Action = "none"
	Stop    Action = "stop"
	Kill    Action = "kill"
	Restart Action = "restart"
)

// ParseAction reads an action in any case, "" being Nothing; ok is false for a name that is none.
func ParseAction(s string) (a Action, ok bool) {
	switch a := Action(strings.ToLower(s)); a {
	case "":
		return Nothing, true
	case Nothing, Stop, Kill, Restart:
		return a, true
	}
	return Nothing, false
}
