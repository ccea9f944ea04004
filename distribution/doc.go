// Package distribution is a client of image registries (the OCI distribution API, as
// Docker Hub and others speak it): which hosts to ask for a name, mirrors before the
// registry, over TLS or not, with which credentials, and what their failures mean in
// Docker's words.
//
// A Client holds what the configuration says and the connections. A Repository is one
// repository used with one set of credentials: it resolves names to descriptors, and
// fetches what those describe. The package stores nothing: where content goes, and
// what an image is, its callers know.
package distribution
