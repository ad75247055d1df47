# make help lists the targets. Everything but the targets marked below needs
# nothing but Go.

SHELL       := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
TOOLS   := $(CURDIR)/.cache/tools
STAMP   := $(TOOLS)/.stamp
DEPS    := proto/.deps/protovalidate
CORE    := breaker sla policy balancer agent/tasks/chain
# Modules of their own, so that what they need never reaches users.
MODULES := $(patsubst %/go.mod,%,$(wildcard bench/*/go.mod test/*/go.mod))

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sort | sed -E 's/:.*## /\t/' | expand -t 20

.PHONY: demo
demo: ## real upstreams, real calls, faults, the report (about 20 s)
	@go run ./cmd/agent demo

.PHONY: run
run: ## run the agent with its built-in defaults
	go run ./cmd/agent run

# grpcnotrace leaves out grpc-go's pages of golang.org/x/net/trace, which nothing
# here serves, and html/template with them.
.PHONY: build
build: ## bin/outrigger: one static, stripped binary
	CGO_ENABLED=0 go build -tags grpcnotrace -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o bin/outrigger ./cmd/agent

.PHONY: test
test: ## every test that needs only Go
	go test $(TESTFLAGS) ./...
	cd tools && go test $(TESTFLAGS) ./corecheck
	@for m in $(MODULES); do echo "# $$m"; (cd $$m && go test $(TESTFLAGS) ./...); done

.PHONY: test-race
test-race: ## the same with the race detector (needs a C compiler)
	$(MAKE) test TESTFLAGS=-race

.PHONY: lint
lint: $(STAMP) $(DEPS) ## golangci-lint, buf lint, buf format, goroutines in the core
	$(TOOLS)/golangci-lint run --allow-serial-runners ./...
	cd tools && go run ./corecheck $(addprefix ../,$(CORE))
	$(TOOLS)/buf lint --path proto/outrigger
	$(TOOLS)/buf format -d --exit-code --path proto/outrigger
	@$(MAKE) --no-print-directory breaking

.PHONY: breaking
breaking: $(STAMP) $(DEPS) ## protos against the previous commit on main
	@if git cat-file -e HEAD~1:proto/outrigger 2>/dev/null; then \
	  rm -rf .cache/previous && mkdir -p .cache/previous/proto/.deps && git archive HEAD~1 proto buf.yaml | tar -x -C .cache/previous && cp -r $(DEPS) .cache/previous/proto/.deps/ && \
	  $(TOOLS)/buf breaking --against .cache/previous; \
	else echo "SKIPPED buf breaking: the previous commit has no proto/"; fi

.PHONY: generate
generate: $(STAMP) $(DEPS) ## gen/ from proto/
	$(TOOLS)/buf format -w --path proto/outrigger
	rm -rf gen
	PATH=$(TOOLS):$$PATH $(TOOLS)/buf generate

.PHONY: check-generated
check-generated: generate ## fails if generate changes anything
	@if [ -n "$$(git status --porcelain gen proto)" ]; then git --no-pager diff --stat gen proto; git status --short gen proto; echo "gen/ is out of date: run make generate and commit"; exit 1; fi

.PHONY: bench
bench: ## benchmarks of the libraries, and of their peers
	go test -run '^$$' -bench . -benchmem ./breaker ./sla ./balancer ./policy ./interceptors ./agent/relay
	@for m in $(wildcard bench/*/go.mod); do (cd $$(dirname $$m) && go test -run '^$$' -bench . -benchmem ./...); done

.PHONY: bench-relay
bench-relay: build ## proxy CPU and latency beside HAProxy, nginx and Envoy, those that there are (needs h2load)
	go run ./bench/relay

.PHONY: bench-memory
bench-memory: build ## what a stalled stream, 10,000 idle ones and 10,000 idle connections cost
	go run ./bench/memory

.PHONY: bench-soak
bench-soak: build ## 100,000 calls must leave goroutines, descriptors and heap where they began
	go run ./bench/soak

.PHONY: test-long-stream
test-long-stream: build ## a stream lives 10 minutes through timeouts, an open breaker and reloads
	go run ./bench/stream

.PHONY: bench-policies
bench-policies: build ## retry storm, hedge, adaptive limit and half-open probes against their goals, beside peers (about 3 minutes)
	go run ./bench/policies

.PHONY: bench-endpoints
bench-endpoints: build ## five faults of endpoints in sequence, and 10,000 endpoints that change (about 2 minutes; root and nft for a real blackhole)
	go run ./bench/endpoints

MAILPIT := $(CURDIR)/.cache/examples/mailpit
.PHONY: test-email
test-email: ## e-mails against Mailpit, a real SMTP server, which is built first (about 1 minute, once)
	@mkdir -p $(dir $(MAILPIT))
	cd examples/welcome-email/mailpit && go build -o $(MAILPIT) github.com/axllent/mailpit
	OUTRIGGER_MAILPIT=$(MAILPIT) go test -count=1 -v -run Mailpit ./agent/tasks/email

.PHONY: test-tasks
test-tasks: ## kills, stops, full disks and lost databases against the task executor (about 10 minutes; wants PostgreSQL, and root)
	OUTRIGGER_TEST_TASKS=all go test -count=1 -v -timeout 60m ./test/tasks

.PHONY: bench-tasks
bench-tasks: build ## submits and execution of tasks against their goals, beside bare River (about 5 minutes; wants PostgreSQL)
	go run ./bench/tasks

.PHONY: bench-tasks-million
bench-tasks-million: build ## a million queued tasks: listing, submitting, memory (about 10 minutes)
	go run ./bench/tasks -only million

.PHONY: test-attack
test-attack: build ## 22 attacks on the egress port beside a good client (about 4 minutes)
	cd test/attack && go run . -tries 3

.PHONY: test-h2spec
test-h2spec: ## h2spec against the egress port
	cd test/h2spec && go test -count=1 -v ./...

.PHONY: test-interop
test-interop: ## grpc-go's interop cases through the agent
	cd test/interop && go test -count=1 -v ./...

.PHONY: test-clients
test-clients: ## grpc-js, grpcio and curl through the agent (needs npm, python3-venv, curl; skips by name what is absent)
	cd test/clients && go test -count=1 -v ./...

KUBERNETES := $(CURDIR)/.cache/kubernetes
.PHONY: test-kubernetes
test-kubernetes: ## EndpointSlices against a real API server, which is built first (about 6 minutes, once)
	@mkdir -p $(KUBERNETES)
	cd test/kubernetes/apiserver && go build -o $(KUBERNETES)/etcd go.etcd.io/etcd/server/v3 && go build -o $(KUBERNETES)/kube-apiserver k8s.io/kubernetes/cmd/kube-apiserver
	cd test/kubernetes && OUTRIGGER_KUBERNETES=$(KUBERNETES) go test -count=1 -v ./...

.PHONY: test-faults
test-faults: ## endpoints that misbehave, one test a fault
	go test -count=1 -v -run 'Upstream|Endpoint|Reset|GoAway|Window|Silent|Answer|Status' ./agent/relay

FUZZINPUTS ?= 5000
.PHONY: fuzz
fuzz: ## every fuzz target, FUZZINPUTS inputs each (5000)
	@tools/fuzz $(FUZZINPUTS)

.PHONY: size
size: build ## binary size, idle memory and time to ready against their budgets
	@tools/size bin/outrigger

# buf, protoc-gen-go, protoc-gen-go-grpc, golangci-lint and benchstat, built
# once for each tools/go.sum.
$(STAMP): tools/go.sum
	@mkdir -p $(TOOLS)
	cd tools && go build -o $(TOOLS)/ github.com/bufbuild/buf/cmd/buf google.golang.org/protobuf/cmd/protoc-gen-go \
	  google.golang.org/grpc/cmd/protoc-gen-go-grpc github.com/golangci/golangci-lint/v2/cmd/golangci-lint golang.org/x/perf/cmd/benchstat
	@touch $@

# buf/validate/validate.proto out of the Go module cache.
$(DEPS): tools/go.sum
	@cd tools && go mod download github.com/bufbuild/protovalidate
	@mkdir -p $@/buf/validate
	@cp -f $$(cd tools && go list -m -f '{{.Dir}}' github.com/bufbuild/protovalidate)/proto/protovalidate/buf/validate/validate.proto $@/buf/validate/
	@chmod -R u+w $@ && touch $@
