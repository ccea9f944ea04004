// Package event is the engine's event bus: a bounded ring of the last messages
// and any number of subscribers. Safe for concurrent use.
package event

import (
	"sync"
	"time"

	"github.com/moby/moby/api/types/events"
)

// RingSize is how many past messages are kept for `since`, as Docker does.
const RingSize = 256

// subscriberBuffer bounds what one slow subscriber may lag behind before it is cut off.
const subscriberBuffer = 1024

// Bus distributes event messages. The zero value is not ready: use New.
type Bus struct {
	mu   sync.Mutex
	ring []events.Message
	subs map[*Subscription]struct{}
}

// New returns an empty bus.
func New() *Bus { return &Bus{subs: map[*Subscription]struct{}{}} }

// Subscription is one reader of the bus.
type Subscription struct {
	bus *Bus
	ch  chan events.Message
}

// C delivers messages. It is closed by Close, or when the subscriber lagged so
// far behind that messages would have been lost silently.
func (s *Subscription) C() <-chan events.Message { return s.ch }

// Close ends the subscription. It may be called more than once.
func (s *Subscription) Close() {
	s.bus.mu.Lock()
	defer s.bus.mu.Unlock()
	s.bus.drop(s)
}

// Publish stamps m with the time and scope when it has none, and hands it to
// everyone. It never blocks.
func (b *Bus) Publish(m events.Message) {
	if m.Scope == "" {
		m.Scope = "local"
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if m.TimeNano == 0 { // under the lock: the ring is in the order of time
		now := time.Now()
		m.Time, m.TimeNano = now.Unix(), now.UnixNano()
	}
	if len(b.ring) == RingSize {
		copy(b.ring, b.ring[1:])
		b.ring = b.ring[:RingSize-1]
	}
	b.ring = append(b.ring, m)
	for s := range b.subs {
		select {
		case s.ch <- m:
		default:
			b.drop(s)
		}
	}
}

// Emit publishes a message of the given type, action and actor.
func (b *Bus) Emit(typ events.Type, action events.Action, id string, attrs map[string]string) {
	b.Publish(events.Message{Type: typ, Action: action, Actor: events.Actor{ID: id, Attributes: attrs}})
}

// Subscribe returns the kept messages not older than since (all of none when
// since is zero) and a subscription that continues right after them, without a gap.
func (b *Bus) Subscribe(since time.Time) ([]events.Message, *Subscription) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var past []events.Message
	if !since.IsZero() {
		for _, m := range b.ring {
			if m.TimeNano >= since.UnixNano() {
				past = append(past, m)
			}
		}
	}
	s := &Subscription{bus: b, ch: make(chan events.Message, subscriberBuffer)}
	b.subs[s] = struct{}{}
	return past, s
}

// Subscribers returns how many there are (for /info).
func (b *Bus) Subscribers() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.subs)
}

func (b *Bus) drop(s *Subscription) {
	if _, ok := b.subs[s]; ok {
		delete(b.subs, s)
		close(s.ch)
	}
}
