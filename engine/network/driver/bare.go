package driver

import "context"

// Bare is a driver of networks that need nothing made: what containers get is in its
// description, and that is no interface.
type Bare struct{ Description }

// Describe implements Driver.
func (b Bare) Describe() Description { return b.Description }

// Check implements Driver.
func (Bare) Check(Network, []Network) error { return nil }

// Resource implements Driver.
func (Bare) Resource(Network) string { return "" }

// Start implements Driver.
func (Bare) Start(context.Context, Network, bool) error { return nil }

// Stop implements Driver.
func (Bare) Stop(context.Context, Network, []Network) error { return nil }

// ProvidesGateway implements Driver.
func (Bare) ProvidesGateway(Network, bool) bool { return false }

// Join implements Driver.
func (Bare) Join(context.Context, Network, Endpoint) (Interface, error) {
	return Interface{}, nil
}

// Adopt implements Driver.
func (Bare) Adopt(Network, Endpoint) {}

// Leave implements Driver.
func (Bare) Leave(context.Context, Network, Endpoint) error { return nil }

// HostNetwork is the driver "host": containers are in the host's network namespace.
func HostNetwork(Host) Driver {
	return Bare{Description{Scope: ScopeLocal, HostNamespace: true, Predefined: true}}
}

// NoNetwork is the driver "null": containers have their loopback and nothing else.
func NoNetwork(Host) Driver { return Bare{Description{Scope: ScopeLocal, Predefined: true}} }

// InSwarm is a driver whose networks are made in a swarm only, on a machine that is in none:
// asking for such a network is refused by its scope.
func InSwarm(Host) Driver { return Bare{Description{Scope: ScopeSwarm, HasInterfaces: true}} }
