# Perigee's build and checks. `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build

GO ?= go
FUZZTIME ?= 60s
TESTTIME ?= 20m
WASM := $(patsubst demo/%/main.go,demo/assets/%.wasm,$(wildcard demo/flights/main.go demo/flightsmerge/main.go))
# Packages whose tests are affordable under the race detector.
RACE ?= . ./schedule ./identity ./db ./p2p ./data ./requester ./provider ./client ./api ./node

.PHONY: build wasm demo deps test check bench fuzz clean help

build: wasm ## build bin/perigee, with the demo's programs inside
	$(GO) build -trimpath -buildvcs=false -o bin/perigee ./cmd/perigee

wasm: $(WASM) ## compile the demo's programs to WebAssembly

demo/assets/%.wasm: $(wildcard demo/flights/*.go demo/flightsmerge/*.go demo/flightstat/*.go) go.mod
	GOOS=wasip1 GOARCH=wasm $(GO) build -trimpath -buildvcs=false -o $@ ./demo/$*

demo: build ## run the main job on real data over five nodes on this machine
	bin/perigee demo

deps: ## install the Debian packages that some tests need, when they are missing
	scripts/install-test-deps

test: deps build ## vet, then run all tests
	$(GO) vet ./...
	$(GO) test ./... -count=1 -timeout $(TESTTIME)

check: build ## vet, lint, layers, and the race detector where it is affordable
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$unformatted" ]; then echo "gofmt these files:"; echo "$$unformatted"; exit 1; fi
	$(GO) test ./internal/layers -count=1
	$(GO) test -race -count=1 -timeout $(TESTTIME) $(RACE)

bench: build ## measure latency, throughput and data speeds beside the machine's limits
	$(GO) run ./bench

fuzz: ## fuzz each decoder of foreign bytes for FUZZTIME (60s)
	scripts/fuzz $(FUZZTIME)

clean: ## remove what the build made
	rm -rf bin .cache demo/assets/*.wasm

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "%-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
