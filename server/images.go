package server

import (
	"net/http"
	"strings"

	"github.com/gantry/gantry/engine/container"
	"github.com/gantry/gantry/engine/image"
	"github.com/gantry/gantry/engine/image/pull"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/moby/moby/api/pkg/authconfig"
	registrytypes "github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// imageAPI are the handlers of /images.
type imageAPI struct{ *Server }

func (s imageAPI) routes() []route {
	return []route{
		{"GET", "/images/json", s.imageList},
		{"POST", "/images/create", s.imageCreate},
		{"POST", "/images/load", s.imageLoad},
		{"POST", "/images/prune", s.imagePrune},
		{"GET", "/images/get", s.imageSave},
		{"GET", "/images/{name...}/get", s.imageSave},
		{"GET", "/images/{name...}/json", s.imageInspect},
		{"GET", "/images/{name...}/history", s.imageHistory},
		{"POST", "/images/{name...}/tag", s.imageTag},
		{"DELETE", "/images/{name...}", s.imageDelete},
	}
}

func (s imageAPI) imageList(c *call) error {
	f, err := c.filters()
	if err != nil {
		return err
	}
	o := image.ListOptions{All: c.flag("all"), Filters: f}
	if !c.version.before(42) {
		o.SharedSize = c.flag("shared-size")
	}
	if !c.version.before(47) {
		o.Manifests = c.flag("manifests")
	}
	list, err := s.Images.List(c.ctx(), o)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, lowerImages(listOf(list), c.version))
}

// registryAuth reads X-Registry-Auth: base64url JSON. Nil is anonymous, and so is,
// as with Docker, a header that can't be read: it never becomes a credential.
func registryAuth(r *http.Request) *registrytypes.AuthConfig {
	auth, err := authconfig.Decode(r.Header.Get(registrytypes.AuthHeader))
	if err != nil || *auth == (registrytypes.AuthConfig{}) {
		return nil
	}
	return auth
}

// pullReference joins the two parameters of a pull. all is set when neither has
// a tag or digest: Docker then pulls every tag.
func pullReference(from, tag string) (ref string, all bool) {
	from = strings.TrimSuffix(from, ":") // what "pull -a" may send
	base := from[strings.LastIndex(from, "/")+1:]
	bare := from
	if i := strings.IndexAny(base, ":@"); i >= 0 {
		bare = from[:len(from)-len(base)+i]
	}
	switch {
	case tag == "":
		return from, bare == from
	case strings.Contains(tag, ":"): // "sha256:…"
		return bare + "@" + tag, false
	default:
		return bare + ":" + tag, false
	}
}

func (s imageAPI) imageCreate(c *call) error {
	if c.query.Get("fromSrc") != "" {
		return errclass.NotImplemented("POST /images/create with fromSrc (import) is not built yet in this engine")
	}
	from := c.query.Get("fromImage")
	if from == "" {
		return errclass.Invalid("fromImage or fromSrc must be given")
	}
	o := pull.Options{Auth: registryAuth(c.r), Headers: map[string][]string{}}
	o.Ref, o.AllTags = pullReference(from, c.query.Get("tag"))
	if p := c.query.Get("platform"); p != "" && !c.version.before(32) {
		platform, err := parsePlatform(p)
		if err != nil {
			return err
		}
		o.Platform = &platform
	}
	for k, v := range c.r.Header {
		if strings.HasPrefix(k, "X-Meta-") {
			o.Headers[k] = v
		}
	}
	ctx, cancel := c.stream() // what was fetched stays: the next pull goes on from there
	defer cancel()
	p := newProgress(c, false)
	return p.end(s.Images.Pull(ctx, o, p))
}

func (s imageAPI) imageLoad(c *call) error {
	if len(c.query["platform"]) > 0 && !c.version.before(48) {
		return errclass.NotImplemented("POST /images/load with platform is not built yet in this engine")
	}
	p := newProgress(c, true)
	return p.end(s.Images.Load(c.ctx(), c.r.Body, c.flagOr("quiet", false), p))
}

func (s imageAPI) imageSave(c *call) error {
	refs := c.query["names"]
	if name := c.vars["name"]; name != "" {
		refs = []string{name}
	}
	if len(refs) == 0 {
		return errclass.Invalid("no image names given")
	}
	var platforms []ocispec.Platform
	if !c.version.before(48) {
		var err error
		if platforms, err = c.parsePlatforms("platform"); err != nil {
			return err
		}
	}
	return s.Images.Save(c.ctx(), refs, platforms, &tarBody{c: c, mediaType: "application/x-tar"})
}

// tarBody sends the header with the first byte, so that an error before it still
// gets a status.
type tarBody struct {
	c         *call
	mediaType string
}

func (t *tarBody) Write(p []byte) (int, error) {
	if !t.c.w.wrote {
		t.c.w.Header().Set("Content-Type", t.mediaType)
	}
	return t.c.w.Write(p)
}

func (s imageAPI) imageInspect(c *call) error {
	platform, err := c.onePlatform("platform", 49)
	if err != nil {
		return err
	}
	manifests := c.flag("manifests") && !c.version.before(48)
	if manifests && platform != nil {
		return errclass.Invalid("conflicting options: manifests and platform options cannot both be set")
	}
	info, err := s.Images.Inspect(c.ctx(), c.vars["name"], platform, manifests)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, lowerImage(info, c.version))
}

func (s imageAPI) imageHistory(c *call) error {
	platform, err := c.onePlatform("platform", 48)
	if err != nil {
		return err
	}
	items, err := s.Images.History(c.ctx(), c.vars["name"], platform)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, listOf(items))
}

func (s imageAPI) imageTag(c *call) error {
	repo, tag := c.query.Get("repo"), c.query.Get("tag")
	if repo == "" {
		return errclass.Invalid("repository name must have at least one component")
	}
	if tag != "" {
		repo += ":" + tag
	}
	if err := s.Images.Tag(c.steady(), c.vars["name"], repo); err != nil {
		return err
	}
	return c.done(http.StatusCreated)
}

func (s imageAPI) imageDelete(c *call) error {
	if len(c.query["platforms"]) > 0 && !c.version.before(50) {
		return errclass.NotImplemented("DELETE /images/{name} with platforms is not built yet in this engine")
	}
	name := c.vars["name"]
	if strings.TrimSpace(name) == "" {
		return errclass.Invalid("image name cannot be blank")
	}
	o := image.RemoveOptions{Force: c.flag("force"), NoPrune: c.flag("noprune")}
	running, err := s.Containers.List(c.ctx(), container.ListOptions{})
	if err != nil {
		return err
	}
	for i := range running {
		o.Running = append(o.Running, running[i].ID)
	}
	list, err := s.Images.Remove(c.steady(), name, o)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, listOf(list))
}

func (s imageAPI) imagePrune(c *call) error {
	f, err := c.filters()
	if err != nil {
		return err
	}
	report, err := s.Images.Prune(c.ctx(), f)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, report)
}
