package event

import (
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/types/events"
)

func TestSubscribeHasNoGap(t *testing.T) {
	b := New()
	b.Emit(events.ContainerEventType, events.ActionCreate, "a", nil)
	past, s := b.Subscribe(time.Unix(0, 1))
	defer s.Close()
	b.Emit(events.ContainerEventType, events.ActionStart, "a", map[string]string{"k": "v"})
	if len(past) != 1 || past[0].Action != events.ActionCreate || past[0].Scope != "local" || past[0].TimeNano == 0 {
		t.Errorf("past: %+v", past)
	}
	if m := <-s.C(); m.Action != events.ActionStart || m.Actor.Attributes["k"] != "v" {
		t.Errorf("next: %+v", m)
	}
	if past, s := b.Subscribe(time.Time{}); len(past) != 0 {
		t.Errorf("without since: %+v", past)
	} else {
		s.Close()
	}
}

func TestRingKeepsTheLast(t *testing.T) {
	b := New()
	for i := range RingSize + 10 {
		b.Publish(events.Message{TimeNano: int64(i + 1)})
	}
	past, s := b.Subscribe(time.Unix(0, 1))
	defer s.Close()
	if len(past) != RingSize || past[0].TimeNano != 11 || past[RingSize-1].TimeNano != RingSize+10 {
		t.Errorf("%d from %d", len(past), past[0].TimeNano)
	}
}

func TestSlowSubscriberIsCutOff(t *testing.T) {
	b := New()
	_, slow := b.Subscribe(time.Time{})
	for range subscriberBuffer + 1 {
		b.Publish(events.Message{})
	}
	n := 0
	for range slow.C() {
		n++
	}
	if n != subscriberBuffer || b.Subscribers() != 0 {
		t.Errorf("%d messages, %d subscribers", n, b.Subscribers())
	}
	slow.Close() // again is no harm
}

func TestConcurrentUse(t *testing.T) {
	b := New()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				_, s := b.Subscribe(time.Unix(0, 1))
				b.Emit("t", "a", "i", nil)
				<-s.C()
				s.Close()
			}
		})
	}
	wg.Wait()
	if b.Subscribers() != 0 {
		t.Error("subscribers are left")
	}
}
