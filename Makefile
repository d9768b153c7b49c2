# A script runner: what a target does is a line or two here, or a script.

# Where scripts/setup.sh puts a Go toolchain if the machine's own is too old.
export PATH := $(CURDIR)/_tools/go/bin:$(PATH)

FUZZTIME = 60s
RESULTS = $(wildcard _build/bench/results-otp*.json _build/bench/wan-otp*.json)
rebar3 = cd erlang && REBAR_BASE_DIR=$(CURDIR)/_build rebar3
platform = $$(go env GOOS)-$$(go env GOARCH)

.NOTPARALLEL:
.PHONY: help docs setup setup-build setup-test build executable test test-all proxies consumers rabbitmq migration resume links go-test page-test eunit ct cover check fuzz dist demo bench wan bench-tools bench-report clean
help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' Makefile | expand -t 14

setup: ## make a Debian machine ready for all of this; each target asks for no more than it needs
	scripts/setup.sh all

setup-build:
	scripts/setup.sh build

setup-test:
	scripts/setup.sh test

build: setup-build executable ## the executable and the application, in _build/default/lib/quic_dist
	$(rebar3) compile

executable: ## the executable alone, for GOOS and GOARCH if they are set
	QUIC_DIST_TARGET=$(platform) escript scripts/executable.escript build

test: setup-test build go-test eunit ct ## all tests of both languages, make dist twice for this system, and 5 s of each fuzz target
	scripts/test-dist.sh $(platform)
	scripts/fuzz.sh 5s

test-all: test docs page-test proxies consumers rabbitmq migration resume links ## and what takes longer, or needs a browser, web servers or Elixir
	scripts/test-dist.sh
	test/bench/boot.sh

page-test: build ## the status page in headless Chromium; SCREENSHOT=docs/status.png takes a picture
	scripts/setup.sh build chromium:chromium
	cd test/page && QUIC_DIST_SCREENSHOT=$(abspath $(SCREENSHOT)) go test $(GOTESTFLAGS) -count=1 ./...

proxies: build ## nodes behind nginx, HAProxy, Caddy and Apache, which are installed if need be
	scripts/setup.sh test nginx:nginx haproxy:haproxy caddy:caddy apache2:apache2-bin # Debian starts them when it installs them
	QUIC_DIST_TEST_PROXIES=all scripts/test-erlang.sh ct webdist_proxies_SUITE

consumers: build ## releases by rebar3 and mix that have this repository as a dependency; CASE=name narrows it
	scripts/setup.sh test mix:elixir setpriv:util-linux
	scripts/test-erlang.sh consumers $(CASE)
	QUIC_DIST_TEST_PRINTED=all go test -count=1 ./test/printed

rabbitmq: build ## three RabbitMQ brokers over QUIC connections that are lost again and again
	scripts/setup.sh test rabbitmq-server:rabbitmq-server # Debian starts it when it installs it
	scripts/test-erlang.sh rabbitmq

resume: export QUIC_DIST_TEST_RESUME = all
resume: setup-test build ## links between nodes whose QUIC connections are lost, beyond make test
	go test $(GOTESTFLAGS) -race -count=1 ./streams
	scripts/test-erlang.sh ct quic_dist_resume_SUITE
	scripts/test-erlang.sh ct quic_dist_resume_ends_SUITE
	scripts/test-erlang.sh ct quic_dist_resume_load_SUITE

links: export QUIC_DIST_TEST_PATH = tcp
links: export QUIC_DIST_TEST_LOCAL = all
links: setup-test build ## the suites of links again, over TCP and over local links
	scripts/test-erlang.sh ct quic_dist_SUITE
	scripts/test-erlang.sh ct quic_dist_connections_SUITE
	scripts/test-erlang.sh ct quic_dist_traffic_SUITE
	scripts/test-erlang.sh ct quic_dist_order_SUITE

migration: setup-test build ## the rehearsal of docs/MIGRATION.md: a cluster from TCP to QUIC and back
	scripts/test-erlang.sh ct quic_epmd_migration_SUITE $(CASE)

go-test: setup-test
	go test $(GOTESTFLAGS) -timeout 30m -race -shuffle=on ./... # on a slow machine the deadlines of tests are stretched
	cd test/bench/report && go test $(GOTESTFLAGS) -shuffle=on ./...
	cd scripts/dist && go test $(GOTESTFLAGS) -shuffle=on ./...

eunit: setup-test build
	scripts/test-erlang.sh eunit

ct: setup-test build ## Common Test alone; SUITE=quic_dist_SUITE and CASE=name narrow it
	scripts/test-erlang.sh ct $(SUITE) $(CASE)

cover: setup-test build ## which lines of the Erlang modules EUnit reaches
	$(rebar3) do eunit, cover --verbose

check: setup build ## everything but the tests that must hold of a commit
	scripts/check-gofmt.sh
	go vet ./...
	go mod tidy -diff
	go fix -diff ./...
	go tool -modfile=tools.mod staticcheck -checks inherit,ST1000,ST1020,ST1021,ST1022 ./... # the last four: doc comments
	scripts/check-modules.sh
	$(rebar3) as check compile
	scripts/check-records.sh
	$(rebar3) xref
	$(rebar3) dialyzer
	scripts/check-edoc.sh
	go test -count=1 ./test/docs ./test/structure
	scripts/check-text.sh
	scripts/check-shell.sh

fuzz: setup-build ## each fuzz target for FUZZTIME
	scripts/fuzz.sh $(FUZZTIME)

dist: setup-build ## archives for every system that releases are made for, checksums and bills of materials, in _build/dist
	scripts/dist.sh _build/dist

demo: build ## two nodes that talk over QUIC
	sh test/demo.sh

bench: build bench-tools ## measure carriers side by side; ONLY="send-64KB cpu", CARRIERS=... and ROUNDS=5 narrow it
	sh test/bench/run.sh

wan: build bench-tools ## the same over emulated links, as root; LINKS="lossy clean", CARRIERS=..., ROUNDS=3 and SECONDS=15 narrow it
	sh test/bench/run.sh wan

bench-tools: executable
	CGO_ENABLED=0 go build -o _build/bench/ ./test/bench/ceiling ./test/wan/link
	cd test/bench/report && CGO_ENABLED=0 go build -o $(CURDIR)/_build/bench/report .

docs: ## the documentation as a site, in _build/site, with that of modules and packages
	scripts/setup.sh all mkdocs:mkdocs
	scripts/docs.sh

bench-report: bench-tools ## docs/BENCHMARKS.md and its plots from RESULTS, files that make bench wrote
	_build/bench/report -docs docs $(RESULTS)

clean: ## remove what was built
	rm -rf _build priv
