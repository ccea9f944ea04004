# Gantry. `make help` lists what there is.
SHELL         := /bin/bash
.SHELLFLAGS   := -o pipefail -c
GO            ?= go
PREFIX        ?= /usr/local
DESTDIR       ?=
BIN           := $(CURDIR)/bin
TOOLS         := $(CURDIR)/.cache/tools
GOLANGCI      := v2.15.0
FUZZTIME      ?= 10s
E2E           ?= .
MODULE        := github.com/gantry/gantry
BINARIES      := docker dockerd gantry-runtime

VERSION       ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo 0.1.0-dev)
COMMIT        ?= $(shell git rev-parse --short HEAD 2>/dev/null || echo unknown)
BUILDTIME     ?= $(shell git log -1 --format=%cI 2>/dev/null || echo unknown)
ifeq ($(filter v%,$(VERSION)),)
override VERSION := 0.1.0-dev
endif
LDFLAGS       := -s -w -X $(MODULE)/internal/version.Version=$(patsubst v%,%,$(VERSION)) \
                 -X $(MODULE)/internal/version.Commit=$(COMMIT) \
                 -X $(MODULE)/internal/version.BuildTime=$(BUILDTIME)
# The runtime begins before Go's does (oci/launch/entry).
ifneq ($(filter amd64 arm64,$(shell $(GO) env GOARCH)),)
ENTRY         := -ldflags './cmd/gantry-runtime=$(LDFLAGS) -E $(MODULE)/oci/launch/entry.Start'
endif

export CGO_ENABLED := 0
export GOFLAGS     ?= -buildvcs=false
# What `make deps` has fetched and made comes before what the machine has.
export PATH        := $(TOOLS)/bin:$(PATH):/usr/sbin:/sbin
export GANTRY_TEST_CACHE := $(CURDIR)/.cache/images

.DEFAULT_GOAL := help
.PHONY: help build test test-unit e2e fresh conformance vm vm-systemd race lint fmt vet fuzz bench quickstart install deps clean

help: ## this list
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## bin/docker, bin/dockerd, bin/gantry-runtime: static, stripped, reproducible
	@echo "Building $(BINARIES) (minutes the first time, seconds later)"
	@mkdir -p $(BIN)
	@$(GO) build -v -trimpath -ldflags '$(LDFLAGS)' $(ENTRY) -o $(BIN)/ $(addprefix ./cmd/,$(BINARIES)) 2>&1 | scripts/progress.sh

test: build deps vet ## everything this machine can run as root: vet, unit tests, end-to-end tests (<= 40 min)
	@rc=0; $(MAKE) --no-print-directory test-unit || rc=1; $(MAKE) --no-print-directory e2e || rc=1; exit $$rc

test-unit: deps ## the tests that need no root (as root: more of them)
	$(GO) test -timeout 15m $$($(GO) list ./... | grep -v /test/e2e)

e2e: build deps ## end-to-end tests of the real binaries; E2E=name runs one script
	@[ "$$(id -u)" = 0 ] || { echo "make e2e needs root: it makes namespaces, mounts and cgroups" >&2; exit 1; }
	@echo "End-to-end tests (a line for each; about 15 min for all)"
	@ls test/e2e/*.txtar | sed 's,.*/,,; s,\.txtar$$,,' | grep -qE '^($(E2E))' || { echo "no script in test/e2e is called '$(E2E)'" >&2; exit 1; }
	@GANTRY_BIN=$(BIN) $(GO) test -json -count=1 -timeout 30m -parallel 2 -run '^Test(Own|Real)/$(E2E)' ./test/e2e | \
		$(GO) run ./test/tools/testprogress

conformance: ## gantry-runtime beside runc and crun: the OCI's validation programs, 1000 random specs (as root, 10 min)
	$(GO) test -count=1 -timeout 30m ./test/runtime -validation -specs 1000 -starts 1000

vm: ## the runtime and the engine on a pure cgroup v2 hierarchy: Debian's kernel under qemu (5 min; not part of test)
	@test/vm/run.sh; rc=$$?; [ $$rc = 77 ] || exit $$rc

vm-systemd: ## the systemd cgroup driver, podman and checkpoints on Debian run by systemd, cgroup v2 and v1 (5 min)
	@for v in v2 v1; do test/vm/systemd.sh $$v; rc=$$?; [ $$rc = 77 ] || [ $$rc = 0 ] || exit $$rc; done

race: ## unit tests under the race detector (needs a C compiler)
	CGO_ENABLED=1 $(GO) test -race -timeout 20m $$($(GO) list ./... | grep -v /test/e2e)

lint: $(TOOLS)/golangci-lint-$(GOLANGCI) ## golangci-lint (vet, staticcheck, gofumpt, …) at a pinned version
	$< run ./...

fmt: $(TOOLS)/golangci-lint-$(GOLANGCI) ## gofumpt over everything
	$< fmt ./...

$(TOOLS)/golangci-lint-$(GOLANGCI):
	@mkdir -p $(TOOLS)
	GOBIN=$(TOOLS) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI)
	@mv $(TOOLS)/golangci-lint $@

vet: ## go vet
	@echo "go vet ./... (a minute or two the first time)"
	@$(GO) vet ./...

fresh: ## the quickstart and all tests in a clone on a new, minimal Debian in namespaces of its own (as root, <= 45 min)
	@GO="$(GO)" scripts/fresh.sh

fuzz: ## every fuzz target for FUZZTIME (10s)
	@GO="$(GO)" FUZZTIME="$(FUZZTIME)" scripts/fuzz.sh

bench: build ## Go benchmarks, then the engine beside its physical floor
	$(GO) test -run '^$$' -bench . -benchtime 200ms $$($(GO) list ./... | grep -v /test/e2e)
	@[ ! -x scripts/bench.sh ] || scripts/bench.sh

quickstart: ## build, start a private daemon, pull and run hello-world and a shell, leave nothing behind
	@scripts/quickstart.sh

install: build ## into $(DESTDIR)$(PREFIX), with systemd units
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib/systemd/system
	install -m 0755 $(addprefix $(BIN)/,$(BINARIES)) $(DESTDIR)$(PREFIX)/bin/
	sed 's|@PREFIX@|$(PREFIX)|g' contrib/systemd/docker.service > $(DESTDIR)$(PREFIX)/lib/systemd/system/docker.service
	install -m 0644 contrib/systemd/docker.socket $(DESTDIR)$(PREFIX)/lib/systemd/system/docker.socket

deps: ## fetches and makes what the tests need, in .cache; installs nothing
	@GO="$(GO)" scripts/deps.sh test

clean: ## what make made
	rm -rf $(BIN) .cache
