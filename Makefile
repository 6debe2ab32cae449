# Everything a developer and CI type. `make help` lists it.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
export CGO_ENABLED := 0
# The version comes from the linker; a checkout of another owner must build too.
export GOFLAGS ?= -buildvcs=false

BIN        := bin/observability-upgrade
VERSION    ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS    := -s -w -X github.com/observability-upgrade/observability-upgrade/internal/cli.buildVersion=$(VERSION)
GOLANGCI   := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
GOFUMPT    := mvdan.cc/gofumpt@v0.12.0
VULNCHECK  := golang.org/x/vuln/cmd/govulncheck@v1.9.0
# Of the versions after it, the module proxy does not have all that they need.
NFPM       := github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.45.2
FUZZTIME   ?= 20s
# Most of a test of the command line, or in a container, is waiting: this many at a
# time keep two cores busy.
PARALLEL   ?= 8

RELEASE_TARGETS ?= amd64,arm64,armv7
DIST       ?= dist

.PHONY: help build demo test unit campaign campaign-rig e2e lint fuzz bench cross release sign deps clean

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

build: ## the static binary, in bin/
	go build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN) ./cmd/observability-upgrade

demo: build ## a real upgrade, then a failing one that rolls back by itself; no root, no network
	$(BIN) demo

deps: ## what the end-to-end tests need from the distribution (root), or a word on what to install
	@./scripts/deps

test: deps cross unit e2e ## all tests

unit: ## unit, property, fault-injection and command-line tests
	go test -count=1 -timeout 30m -p 4 -parallel $(PARALLEL) ./test/script/... ./packaging/... ./internal/... ./bench/... ./cmd/... ./test/upstream/...

# All points: CAMPAIGN_TIME=all. One point again: CAMPAIGN_POINT='apply>kill@57'. See docs/campaign.md.
campaign: export CAMPAIGN_TIME ?= 5m
campaign: ## crash, power-cut and error campaign for CAMPAIGN_TIME (needs root for FUSE and loop devices; skips without)
	go test -count=1 -timeout 12h -v -p 1 -run '$(if $(CAMPAIGN_POINT),TestPoint$$,.)' ./test/campaign/...

e2e: ## real systemd in containers, real Prometheus, Alertmanager and node_exporter (needs root; skips without)
	go test -count=1 -timeout 120m -parallel $(PARALLEL) ./test/e2e/...

campaign-rig: ## hundreds of kills, power cuts, full and broken disks on real systemd, at random instants (root; about an hour)
	OBSUP_CAMPAIGN=full go test -count=1 -v -timeout 4h -parallel $(PARALLEL) -run '^Test(KillAtRandom|PowerOffAtRandom|BadFileSystemIsRefused|FileSystemFailsDuringRun|DiskBreaksDuringRun|ManagerRestartsDuringRun|LittleMemory|ClockJumps)$$' ./test/e2e/

cross: ## compile for every platform we ship
	for arch in amd64 arm64 arm; do GOOS=linux GOARCH=$$arch GOARM=7 go build -trimpath -o /dev/null ./cmd/observability-upgrade; done

release: ## archives, packages, bills of materials, SHA256SUMS and signature, in $(DIST) (dist); the same commit gives the same bytes
	@[ "$(DIST)" != dist ] || rm -rf dist
	go run ./packaging/release -out $(DIST) -targets $(RELEASE_TARGETS) -nfpm $(NFPM)

sign: ## sign dist/SHA256SUMS by the key in the file RELEASE_SIGNING_KEY_FILE
	go run ./packaging/release -out $(DIST) -sign

lint: ## formatting, vet, linters, known vulnerabilities, tidy go.mod
	@test -z "$$(go run $(GOFUMPT) -l bench cmd internal packaging test)" || { echo 'gofumpt: run `make fmt`:'; go run $(GOFUMPT) -l bench cmd internal packaging test; exit 1; }
	go vet ./...
	go run $(GOLANGCI) run ./...
	./scripts/vulncheck $(VULNCHECK)
	go mod tidy -diff

fmt: ## format the code
	go run $(GOFUMPT) -w bench cmd internal packaging test

fuzz: ## every fuzz target for FUZZTIME, or those that FUZZ matches
	./scripts/fuzz $(FUZZTIME) $(FUZZ)

bench: ## benchmarks, into docs/benchmarks.md; figures are ratios within one run (root: all of them)
	@./scripts/deps bench
	@mkdir -p bin
	go test -run '^$$' -bench 'Fetch|Check|NothingToDo|Backup|Serve' -benchtime 1x -timeout 60m ./bench/ | tee bin/bench.txt
	go test -run '^$$' -bench 'Plan|Million' -timeout 30m ./bench/ ./internal/history/ | tee -a bin/bench.txt
	go test -run '^$$' -bench Downtime -benchtime 1x -timeout 60m ./test/e2e/ | tee -a bin/bench.txt
	go run ./bench/report docs/benchmarks.md docs/pictures/benchmarks.svg <bin/bench.txt

clean: ## remove what was built
	rm -rf bin dist
