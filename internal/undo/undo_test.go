package undo

import (
	"errors"
	"slices"
	"testing"
)

func TestRunGoesBackwardsAndOn(t *testing.T) {
	var l List
	var order []int
	first, last := errors.New("first"), errors.New("last")
	l.Add(func() error { order = append(order, 1); return first })
	l.Add(func() error { order = append(order, 2); return nil })
	l.Add(func() error { order = append(order, 3); return last })
	err := l.Run()
	if !slices.Equal(order, []int{3, 2, 1}) || !errors.Is(err, first) || !errors.Is(err, last) {
		t.Errorf("%v %v", order, err)
	}
	if err := l.Run(); err != nil || len(order) != 3 {
		t.Errorf("the second run did something: %v %v", order, err)
	}
}

func TestKeep(t *testing.T) {
	var l List
	l.Add(func() error { return errors.New("undone") })
	l.Keep()
	if err := l.Run(); err != nil {
		t.Error(err)
	}
}
