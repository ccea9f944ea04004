package container

import (
	"context"

	"github.com/gantry/gantry/api/stream"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/filter"
	"github.com/moby/moby/api/types/container"
)

var errNotBuilt = errclass.NotImplemented("containers are not built yet")

func (s *Service) Create(ctx context.Context, o CreateOptions) (container.CreateResponse, error) {
	return container.CreateResponse{}, errNotBuilt
}
func (s *Service) Start(ctx context.Context, ref string) error                  { return errNotBuilt }
func (s *Service) Stop(ctx context.Context, ref string, o StopOptions) error    { return errNotBuilt }
func (s *Service) Restart(ctx context.Context, ref string, o StopOptions) error { return errNotBuilt }
func (s *Service) Kill(ctx context.Context, ref, signal string) error           { return errNotBuilt }
func (s *Service) Pause(ctx context.Context, ref string) error                  { return errNotBuilt }
func (s *Service) Unpause(ctx context.Context, ref string) error                { return errNotBuilt }
func (s *Service) Rename(ctx context.Context, ref, name string) error           { return errNotBuilt }
func (s *Service) Resize(ctx context.Context, ref string, height, width uint16) error {
	return errNotBuilt
}
func (s *Service) Remove(ctx context.Context, ref string, o RemoveOptions) error { return errNotBuilt }
func (s *Service) Wait(ctx context.Context, ref string, cond container.WaitCondition) (<-chan container.WaitResponse, error) {
	return nil, errNotBuilt
}
func (s *Service) Attach(ctx context.Context, ref string, o AttachOptions, hijack stream.Hijack) error {
	return errNotBuilt
}
func (s *Service) Logs(ctx context.Context, ref string, o LogsOptions, w LogWriter) error {
	return errNotBuilt
}
func (s *Service) Inspect(ctx context.Context, ref string, size bool) (container.InspectResponse, error) {
	return container.InspectResponse{}, errNotBuilt
}
func (s *Service) List(ctx context.Context, o ListOptions) ([]container.Summary, error) {
	return nil, errNotBuilt
}
func (s *Service) Top(ctx context.Context, ref string, psArgs []string) (container.TopResponse, error) {
	return container.TopResponse{}, errNotBuilt
}
func (s *Service) Prune(ctx context.Context, f filter.Args) (container.PruneReport, error) {
	return container.PruneReport{}, errNotBuilt
}
func (s *Service) ExecCreate(ctx context.Context, ref string, o container.ExecCreateRequest) (string, error) {
	return "", errNotBuilt
}
func (s *Service) ExecStart(ctx context.Context, execID string, o container.ExecStartRequest, hijack stream.Hijack) error {
	return errNotBuilt
}
func (s *Service) ExecInspect(ctx context.Context, execID string) (container.ExecInspectResponse, error) {
	return container.ExecInspectResponse{}, errNotBuilt
}
func (s *Service) ExecResize(ctx context.Context, execID string, height, width uint16) error {
	return errNotBuilt
}
