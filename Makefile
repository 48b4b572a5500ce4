# What can be done with this repository; `make` alone lists it.

SHELL       := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

GO       ?= go
MODULES  ?= . echocache/echo5 examples examples/neighbours examples/benchmarks
# More flags for go test: make test FLAGS='-run Invalidat -v'.
FLAGS    ?=
FUZZTIME ?= 60s
BENCH    ?= .
# Of simulate and faults.
OPERATIONS ?= 100000000
DURATION   ?= 60s
# Of sweep.
KEYS       ?= 1000000
# Of writebehind.
CHANGES    ?= 1000000
# Of faults and writebehind.
CLUSTER    ?=
# Of test and race: packages at a time. Many tests wait for servers, so that two processors are idle with two.
PACKAGES   ?= 4
# Tests that take minutes, by their names, which test and race leave out and `long` runs: they build the code without a
# rule, and demand that other tests fail. `test` checks that the text of every rule is in the source.
LONG_TESTS := RuleOfThe.*TakenOut
# Of long: operations of the simulation. `test` runs 150,000.
LONG_OPERATIONS ?= 2000000
# Of conformance: REDIS=1 measures each adapter over a redis-server, too.
ADAPTERS ?= nethttp echo gin fiber
REDIS    ?=
# Of mutations: all runs the whole suite for each rule, not only the cases that a rule's row names.
CASES      ?=
# Of servers: the paths of redis-server, valkey-server and their like.
SERVERS  ?=
# What `newest` tests with: the newest release of the major version of each framework, and of go-redis.
NEWEST   ?= github.com/labstack/echo/v4@v4 github.com/gin-gonic/gin@v1 github.com/gofiber/fiber/v2@v2 github.com/redis/go-redis/v9@v9

# Tools are pinned, and installed beside the code, not into the user's folders. The
# linters' cache, too: it keeps the paths of the copy that it was filled by, and the
# rules that go by a file's path would miss in another.
GOLANGCI_LINT_VERSION := v2.12.2
TOOLS                 := $(CURDIR)/.tools
GOLANGCI_LINT         := $(TOOLS)/golangci-lint-$(GOLANGCI_LINT_VERSION)
CACHE_TESTS_VERSION   := 0.4.5
CACHE_TESTS           := $(TOOLS)/http-cache-tests-$(CACHE_TESTS_VERSION)

.PHONY: help
help: ## List the targets
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# The shared tier's tests run against a real Redis, which they start themselves.
.PHONY: deps
deps: ## Install redis-server, for the tests, if it is missing (apt-get, as root)
	@if command -v redis-server >/dev/null; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends redis-server; \
	else \
		echo "redis-server is missing: the tests start one. Install it, as root:" >&2; \
		echo "  apt-get install redis-server | dnf install redis | apk add redis, or brew install redis" >&2; \
		exit 1; \
	fi

.PHONY: test
test: deps ## Run every test but those of `long` (FLAGS='-run X' for some)
	@for m in $(MODULES); do echo "go -C $$m test -p $(PACKAGES) -skip '$(LONG_TESTS)' $(FLAGS) ./..."; \
		$(GO) -C $$m test -p $(PACKAGES) -skip '$(LONG_TESTS)' $(FLAGS) ./...; done

.PHONY: race
race: deps ## The same under the race detector (MODULES=. leaves out the examples)
	@for m in $(MODULES); do echo "go -C $$m test -race -p $(PACKAGES) -skip '$(LONG_TESTS)' $(FLAGS) ./..."; \
		$(GO) -C $$m test -race -p $(PACKAGES) -skip '$(LONG_TESTS)' $(FLAGS) ./...; done

.PHONY: long
long: deps ## What `test` leaves out or runs short: rules taken out, and a simulation of LONG_OPERATIONS
	@for p in ./core/internal/test/histories ./core/internal/test/simulate; do \
		$(GO) test -list '$(LONG_TESTS)' $$p | grep '^Test' >/dev/null || { echo "$$p has no test named $(LONG_TESTS)" >&2; exit 1; }; done
	LARDER_RULES=all $(GO) test -count=1 -timeout 30m -run '$(LONG_TESTS)' ./core/internal/test/histories
	$(GO) test -count=1 -timeout 30m -run '$(LONG_TESTS)' ./core/internal/test/simulate
	LARDER_OPERATIONS=$(LONG_OPERATIONS) $(GO) test -count=1 -timeout 30m -run '^TestSimulation' ./core/internal/test/simulate

.PHONY: lint
lint: $(GOLANGCI_LINT) ## Run the linters, also on formatting and on who imports whom
	@for m in $(MODULES); do echo "golangci-lint run ($$m)"; \
		(cd $$m && GOLANGCI_LINT_CACHE=$(TOOLS)/lint-cache $(GOLANGCI_LINT) run ./...); done

$(GOLANGCI_LINT):
	@mkdir -p $(TOOLS)
	GOBIN=$(TOOLS) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
	@mv $(TOOLS)/golangci-lint $@

.PHONY: fuzz
fuzz: deps ## Run every fuzzer for FUZZTIME each (default 60s)
	@grep -rEo --include='*_test.go' --exclude-dir=examples --exclude-dir='.?*' '^func Fuzz[A-Za-z0-9_]+' . | sort | \
	while IFS=: read -r file func; do \
		echo "$${func#func }, $(FUZZTIME)"; \
		$(GO) test -run='^$$' -fuzz="^$${func#func }$$" -fuzztime=$(FUZZTIME) -fuzzminimizetime=1x "$$(dirname "$$file")" </dev/null; \
	done

.PHONY: bench
bench: ## Run the benchmarks (BENCH=X for some), then a hit against a bare handler
	@for m in $(MODULES); do echo "go -C $$m test -bench $(BENCH) ./..."; $(GO) -C $$m test -run='^$$' -bench='$(BENCH)' -benchmem $(FLAGS) ./...; done
	@$(GO) -C examples/benchmarks run .

.PHONY: bench-peers
bench-peers: ## Larder beside other caches; writes examples/benchmarks/PEERS.md and its plot; needs redis-server and wrk (FLAGS='-only redis')
	$(GO) -C examples/benchmarks run . -peers -write . $(FLAGS)

.PHONY: bench-gate
bench-gate: ## Fail if a hit allocates more than it did, or takes far longer than a handler that writes the same
	$(GO) -C examples/benchmarks run . -gate

.PHONY: simulate
simulate: ## Histories of several caches over a tier in memory that fails (OPERATIONS), then each rule of the protocol taken out
	LARDER_OPERATIONS=$(OPERATIONS) $(GO) test -count=1 -timeout 0 -v -run 'Simulation|Scenario' ./core/internal/test/simulate
	LARDER_RULES=all $(GO) test -count=1 -timeout 0 -v -run ProtocolTakenOut ./core/internal/test/simulate

.PHONY: faults
faults: deps ## Four processes over a real Redis that fails, for DURATION (CLUSTER=1: three masters and three replicas)
	$(GO) run ./core/internal/test/faults -duration $(DURATION) $(if $(CLUSTER),-cluster)
	$(GO) run ./core/internal/test/faults -mode herd
	$(GO) run ./core/internal/test/faults -mode stop
	$(GO) run ./core/internal/test/faults -mode refused

.PHONY: sweep
sweep: deps ## Invalidate a prefix of KEYS entries on one Redis and on a cluster: what it takes, and what other clients feel
	LARDER_KEYS=$(KEYS) $(GO) test -count=1 -timeout 0 -v -run TestSweepAtSize ./core/redisstore

.PHONY: latency
latency: deps ## Hits, misses and invalidations over a Redis at round trips from 1 to 400 ms: what is stored, and who waits how long
	$(GO) run ./core/internal/test/latency $(FLAGS)

.PHONY: writebehind
writebehind: deps ## CHANGES queued and applied by four processes, killed in turn, over a Redis that is restarted (CLUSTER=1: three masters)
	$(GO) run ./core/internal/test/writebehindload -changes $(CHANGES) $(if $(CLUSTER),-cluster)

.PHONY: mutants
mutants: ## Take each rule of one process out of the engine's source: the tests must notice (a build for each)
	LARDER_RULES=all $(GO) test -count=1 -timeout 0 -v -run EngineTakenOut ./core/internal/test/histories

.PHONY: newest
newest: deps ## Run the root module's tests with the newest release of each framework and of go-redis
	@tmp=$$(mktemp -d); trap 'rm -rf "$$tmp"' EXIT; \
	cp go.mod go.sum "$$tmp"; \
	$(GO) get -modfile="$$tmp/go.mod" $(NEWEST); \
	$(GO) mod tidy -modfile="$$tmp/go.mod"; \
	$(GO) test -modfile="$$tmp/go.mod" $(FLAGS) ./...

.PHONY: servers
servers: ## Run the shared tier's tests on other servers (SERVERS="/path/to/valkey-server …", FLAGS)
	@[ -n "$(strip $(SERVERS))" ] || { echo 'name the servers: make servers SERVERS="/path/to/redis-server /path/to/valkey-server"' >&2; exit 1; }
	@for s in $(SERVERS); do \
		"$$s" --version; \
		LARDER_REDIS_SERVER="$$s" $(GO) test -count=1 $(FLAGS) ./core/internal/test/redisserver ./core/internal/glob ./core/redisstore; \
	done

.PHONY: conformance
conformance: $(if $(REDIS),deps) $(CACHE_TESTS) ## The public suite for HTTP caches through each of ADAPTERS (FLAGS='-only ID' for one test; needs node and npm)
	$(GO) -C examples run ./proxy/conformance -suite $(CACHE_TESTS)/node_modules/http-cache-tests -results $(TOOLS) \
		-adapters '$(ADAPTERS)' $(if $(REDIS),-redis) $(FLAGS)

.PHONY: deps-downstream
deps-downstream: ## Install the caches of `downstream` where they are missing (apt-get, as root)
	@missing=; for p in nginx:nginx-light varnishd:varnish squid:squid apache2:apache2 traffic_server:trafficserver haproxy:haproxy; do \
		PATH="$$PATH:/usr/sbin" command -v "$${p%%:*}" >/dev/null || missing="$$missing $${p##*:}"; done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -q && DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -qy --no-install-recommends $$missing; \
	else \
		echo "missing; install them, as root: apt-get install$$missing" >&2; exit 1; \
	fi

.PHONY: downstream
downstream: deps-downstream ## Measure six shared caches in front of Larder, and write the table of DOWNSTREAM.md
	PATH="$$PATH:/usr/sbin" $(GO) -C examples run ./downstream -write $(CURDIR)/core/httpcache/DOWNSTREAM.md $(FLAGS)

$(CACHE_TESTS):
	@mkdir -p $(TOOLS)
	@rm -rf $@.part
	npm install --prefix $@.part --no-save --ignore-scripts --no-audit --no-fund http-cache-tests@$(CACHE_TESTS_VERSION)
	@mv $@.part $@

.PHONY: tidy-check
tidy-check: ## Fail if a go.mod or go.sum is not tidy
	@for m in $(MODULES); do echo "go -C $$m mod tidy -diff"; $(GO) -C $$m mod tidy -diff; done

.PHONY: mutations
mutations: ## Take each rule of the HTTP engine out of the source: adaptertest must notice (CASES=all: the whole suite for each)
	LARDER_CASES=$(CASES) $(GO) test -tags mutation -run TestMutations -timeout 8h -v ./core/adaptertest | grep -E '^ *(---|mutations_test)|^(ok|FAIL|PASS)'
