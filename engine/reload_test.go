package engine

import (
	"slices"
	"testing"
)

func TestMerge(t *testing.T) {
	old, err := parseWith(t, `{"labels": ["a=b"], "mtu": 1400, "insecure-registries": ["x:1"]}`)
	if err != nil {
		t.Fatal(err)
	}
	next, err := parseWith(t, `{"labels": ["c=d"], "mtu": 1300, "debug": true}`)
	if err != nil {
		t.Fatal(err)
	}
	c, changed, later := merge(old, next)
	// The configuration file itself has another path in this test.
	if !slices.Equal(changed, []string{"debug", "insecure-registry", "label"}) || !slices.Equal(later, []string{"config-file", "mtu"}) {
		t.Errorf("changed %v, later %v", changed, later)
	}
	if !c.Debug || c.Labels[0] != "c=d" || c.MTU != 1400 || len(c.InsecureRegistries) != 0 || old.Debug {
		t.Errorf("%+v", c)
	}
	if _, changed, later = merge(c, next); len(changed) != 0 || !slices.Contains(later, "mtu") {
		t.Errorf("the second time: changed %v, later %v", changed, later)
	}
}
