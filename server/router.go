package server

import (
	"net/http"
	"strings"
)

// handler serves one endpoint. An error it returns is written as Docker's JSON
// error when nothing was written yet, otherwise it ends the response.
type handler func(*call) error

// route is one endpoint. The pattern's segments are literal, {name} for exactly
// one segment, or {name...} for one or more (image names have slashes); there is
// at most one of the latter.
type route struct {
	method, pattern string
	serve           handler
}

type compiled struct {
	segments []string
	multi    int // index of the {name...} segment, -1 for none
	serve    handler
}

// router finds the handler of a method and path. It is immutable once made.
type router struct {
	byHead map[string][]compiled // by method and first segment
}

func newRouter(routes []route) *router {
	r := &router{byHead: map[string][]compiled{}}
	for _, rt := range routes {
		c := compiled{segments: splitPath(rt.pattern), multi: -1, serve: rt.serve}
		for i, s := range c.segments {
			if strings.HasSuffix(s, "...}") {
				c.multi = i
			}
		}
		key := rt.method + " " + c.segments[0]
		r.byHead[key] = append(r.byHead[key], c)
	}
	return r
}

// find returns the first route that matches, and the values of its wildcards.
func (r *router) find(method, path string) (handler, map[string]string) {
	segments := splitPath(path)
	if len(segments) == 0 {
		return nil, nil
	}
	for _, c := range r.byHead[method+" "+segments[0]] {
		if vars, ok := c.match(segments); ok {
			return c.serve, vars
		}
	}
	if method == http.MethodHead { // as net/http does: HEAD is GET without the body
		return r.find(http.MethodGet, path)
	}
	return nil, nil
}

func (c compiled) match(segments []string) (map[string]string, bool) {
	extra := len(segments) - len(c.segments)
	if extra < 0 || (extra > 0 && c.multi < 0) {
		return nil, false
	}
	var vars map[string]string
	at := 0
	for i, want := range c.segments {
		n := 1
		if i == c.multi {
			n += extra
		}
		got := strings.Join(segments[at:at+n], "/")
		at += n
		if !strings.HasPrefix(want, "{") {
			if want != got {
				return nil, false
			}
			continue
		}
		if got == "" {
			return nil, false
		}
		if vars == nil {
			vars = map[string]string{}
		}
		vars[strings.TrimSuffix(want[1:len(want)-1], "...")] = got
	}
	return vars, true
}

func splitPath(p string) []string {
	p = strings.TrimPrefix(p, "/")
	if p == "" {
		return nil
	}
	return strings.Split(p, "/")
}
