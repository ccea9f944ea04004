package server

import (
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	imagetypes "github.com/moby/moby/api/types/image"
)

// legacyImage is the answer of an image inspect until 1.51: fields that newer
// versions omit when they are empty are there.
type legacyImage struct {
	imagetypes.InspectResponse
	Parent, Comment, DockerVersion, Author string
	Config                                 *legacyImageConfig
	VirtualSize                            *int64 `json:",omitempty"`
}

// legacyImageConfig shows the configuration's empty fields.
type legacyImageConfig struct {
	*dockerspec.DockerOCIImageConfig
	User       string
	Env        []string
	Cmd        []string
	Entrypoint []string
	Volumes    map[string]struct{}
	WorkingDir string
	OnBuild    []string
	Labels     map[string]string
	*emptyContainerFields
}

// emptyContainerFields were in the answer until 1.49, always empty.
type emptyContainerFields struct {
	Hostname, Domainname, Image             string
	AttachStdin, AttachStdout, AttachStderr bool
	Tty, OpenStdin, StdinOnce               bool
}

// lowerImage turns the newest inspect answer into that of version v.
func lowerImage(info imagetypes.InspectResponse, v apiVersion) any {
	if v.before(53) {
		info.Identity = nil
	}
	if v.before(48) {
		info.Descriptor, info.Manifests = nil, nil
	}
	if !v.before(52) {
		return info
	}
	old := legacyImage{InspectResponse: info, Comment: info.Comment, Author: info.Author}
	if c := info.Config; c != nil {
		old.Config = &legacyImageConfig{
			DockerOCIImageConfig: c, User: c.User, Env: c.Env, Cmd: c.Cmd, Entrypoint: c.Entrypoint,
			Volumes: c.Volumes, WorkingDir: c.WorkingDir, OnBuild: c.OnBuild, Labels: c.Labels,
		}
		if v.before(50) {
			old.Config.emptyContainerFields = &emptyContainerFields{}
		}
	}
	if v.before(44) {
		old.VirtualSize = &info.Size
	}
	return old
}

// legacySummary is an entry of the image list before 1.44.
type legacySummary struct {
	imagetypes.Summary
	VirtualSize int64
}

// lowerImages turns the newest list into that of version v.
func lowerImages(list []imagetypes.Summary, v apiVersion) any {
	var old []legacySummary
	for i := range list {
		if v.before(48) {
			list[i].Descriptor = nil
		}
		if v.before(51) {
			list[i].Containers = -1
		}
		if v.before(43) && len(list[i].RepoTags) == 0 && len(list[i].RepoDigests) == 0 {
			list[i].RepoTags, list[i].RepoDigests = []string{"<none>:<none>"}, []string{"<none>@<none>"}
		}
		if v.before(44) {
			old = append(old, legacySummary{list[i], list[i].Size})
		}
	}
	if v.before(44) {
		return listOf(old)
	}
	return list
}
