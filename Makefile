# Everything a person does with this project. `make` alone tells what there is.

CARGO ?= cargo

.DEFAULT_GOAL := help

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## install what is missing (Redis, PostgreSQL, libclang), start nothing
	@.ci/setup

.PHONY: build
build: setup ## the module, optimised: target/release/libmcache.so
	$(CARGO) build --release -p mcache-module

.PHONY: run
run: build ## start Redis with the module, replay a recorded shop's day through the client, leave Redis to try
	$(CARGO) run --release -p mcache-examples --bin replay

.PHONY: releases
releases: build ## two services on one PostgreSQL, one of them released and rolled back: what each had cached, what was cleared, 0 stale
	$(CARGO) run -p mcache-examples --bin releases

.PHONY: storefront
storefront: build ## a store on PostgreSQL with a live page: off, cache, cache and near; MEDUSA_FF_CACHING=false runs it without the cache
	MEDUSA_FF_CACHING=$${MEDUSA_FF_CACHING-true} $(CARGO) run --release -p mcache-examples --bin storefront

.PHONY: storefront-bench
storefront-bench: build ## the store without the cache, with it and with a near cache, in alternating rounds; writes docs/results/storefront.*
	$(CARGO) run --release -p mcache-benches --bin storefront-bench

.PHONY: test
test: build ## every test: pure logic, client, real servers, the store's page in a browser, the package for Medusa
	@.ci/setup chromium npm
	@CARGO=$(CARGO) .ci/test --workspace --features mcache-postgres/watch
	@$(MAKE) --no-print-directory test-medusa

.PHONY: test-medusa
test-medusa: build ## the npm package for Medusa, on Node, against real servers; NAME=... picks a file of client/medusa/test
	@.ci/setup npm
	@cd client/medusa && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null && \
		node --test --test-timeout=300000 test/$(if $(NAME),$(NAME),*).test.js

.PHONY: watch
watch: ## the program mcache-watch, optimised: target/release/mcache-watch
	$(CARGO) build --release -p mcache-postgres --features watch --bin mcache-watch

.PHONY: medusa
medusa: build watch ## a real Medusa server with the package: every kind of change, races, outages, processes, SQL; goes on where it was cut short
	@.ci/setup npm
	@benches/medusa/medusa.sh types
	@benches/medusa/medusa.sh check
	@benches/medusa/medusa.sh watch
	@benches/medusa/medusa.sh split

.PHONY: medusa-bench
medusa-bench: build ## the same server without a cache, with Medusa's and with ours, in turns; writes docs/results/medusa.md
	@.ci/setup npm
	@benches/medusa/medusa.sh bench

.PHONY: test-unit
test-unit: ## tests that start no server
	$(CARGO) test -p mcache-core
	$(CARGO) test -p mcache -p mcache-graph -p mcache-postgres --lib

.PHONY: mutants
mutants: ## small faults in core, each of which must make a test of core fail; NAME=... picks some (module/core/mutants)
	$(CARGO) run -q -p mcache-core --example mutants -- $(NAME)

.PHONY: mutants-near
mutants-near: ## small faults in the client's half of the near cache (client/mutants/near), each of which must make a unit test fail
	$(CARGO) run -q -p mcache-core --example mutants -- --client $(NAME)

.PHONY: mutants-plain
mutants-plain: ## small faults in the script of the provider without the module (client/mutants/plain), each of which must make a test fail
	$(CARGO) test -p mcache-tests --test suite -- --nocapture --exact plain::mutants::each_fault_of_the_script_makes_a_test_fail

.PHONY: asan
asan: ## core's tests under AddressSanitizer
	@CARGO=$(CARGO) .ci/asan

.PHONY: miri
miri: ## the unsafe part of core under Miri, where it is installed
	@.ci/miri

.PHONY: msrv
msrv: ## builds with the oldest Rust that Cargo.toml promises, where it is installed
	@.ci/msrv

.PHONY: deny
deny: ## licences, bans and sources of dependencies, as deny.toml says; needs cargo-deny. CHECK=advisories asks its database
	@.ci/need cargo-deny
	$(CARGO) deny --all-features check $(or $(CHECK),licenses bans sources)

.PHONY: coverage
coverage: ## which lines of core its tests run; needs cargo-tarpaulin. The report is target/coverage/tarpaulin-report.html
	@.ci/need cargo-tarpaulin
	$(CARGO) tarpaulin --engine ptrace -p mcache-core --target-dir target/coverage --out html --output-dir target/coverage

.PHONY: semver
semver: ## compares the crates' public API with the newest tag, or with SINCE=v0.1.0; needs cargo-semver-checks
	@SINCE=$(SINCE) .ci/semver

.PHONY: test-server
test-server: build ## tests on real servers, one file per property; NAME=... picks some
	$(CARGO) test -p mcache-tests --test suite -- $(NAME)

.PHONY: test-sql
test-sql: ## tags named in transactions of sqlx and diesel; compiles both, a minute of processor time
	@.ci/setup
	$(CARGO) test -p mcache-tests --test suite -- --include-ignored postgres::tags::transactions_of_sqlx

.PHONY: oracle-broken
oracle-broken: ## break automatic invalidation on purpose, one property at a time: the oracle on PostgreSQL must notice each; BREACH=... picks one
	MCACHE_BREACH=$(BREACH) $(CARGO) test -p mcache-tests --test suite -- --nocapture --include-ignored postgres::oracle::each_breach_is_noticed

.PHONY: test-servers
test-servers: build ## tests on other versions of Redis and Valkey; SERVERS=... picks some, as .ci/test-servers says
	@.ci/setup servers
	@CARGO=$(CARGO) .ci/test-servers $(SERVERS)

.PHONY: test-long
test-long: export MCACHE_LONG = 1
test-long: build ## every test and the ones that take minutes
	@.ci/setup chromium
	$(CARGO) test --workspace --release -- --include-ignored
	@$(MAKE) --no-print-directory bench-ir COMPARE=1

.PHONY: valgrind
valgrind: build ## some of the tests with Redis and the module under memcheck, two minutes; NAME=... picks others, NAME=all half an hour
	@.ci/setup valgrind
	@.ci/memcheck $(NAME)

.PHONY: fuzz
fuzz: ## coverage-guided fuzzing of parser, encoding and patterns, TIME=60 seconds each; NAME=... picks, SANITIZER=address
	@.ci/fuzz $(NAME)

.PHONY: lint
lint: ## formatting, clippy (each published crate also without features and with each alone) and rustdoc, warnings are errors
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --features mcache-postgres/watch -- -D warnings
	@CARGO=$(CARGO) .ci/lint-features
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps

.PHONY: bench
bench: build ## against plain Redis and rivals; writes benches/RESULTS.md. COMPARE=1 instead says what became slower
	$(CARGO) run --release -p mcache-benches --bin server-bench -- $(if $(COMPARE),--compare)

.PHONY: bench-postgres
bench-postgres: ## commits a second without capture, with one and with ten consumers; adds to benches/RESULTS.md
	@.ci/setup
	$(CARGO) run --release -p mcache-benches --bin postgres-bench

.PHONY: bench-servers
bench-servers: build ## GET, FETCH and SET on the installed Redis and on newer servers; adds to benches/RESULTS.md; SERVERS="redis-8.6" picks
	@.ci/setup servers
	$(CARGO) run --release -p mcache-benches --bin server-bench -- --this-server
	@for name in $${SERVERS-redis-8.6 valkey-9.1}; do \
		MCACHE_REDIS_BIN=$$(.ci/servers --where)/$$name/bin $(CARGO) run --release -p mcache-benches --bin server-bench -- --this-server || exit; done

.PHONY: bench-near
bench-near: build ## a hit in the near cache beside quick_cache and moka, settling beside PUBLISH, FEED's cost; PART=settling picks
	PART=$(PART) $(CARGO) run --release -p mcache-benches --bin near-bench

.PHONY: bench-ir
bench-ir: build ## instructions per operation, counted by valgrind; adds to benches/RESULTS.md, or COMPARE=1
	@.ci/setup valgrind
	$(CARGO) run --release -p mcache-benches --bin server-bench -- --instructions $(if $(COMPARE),--compare)

.PHONY: dist
dist: ## the module as .deb, tarball and the zip for Redis Software, mcache-watch, the package for Medusa, in target/dist
	@.ci/setup
	@packaging/dist

.PHONY: release-check
release-check: ## what has to be true before a release: versions, changelog, contents of packages, golden files; changes nothing
	@.ci/setup npm
	@.ci/release-check

.PHONY: bench-limits
bench-limits: build ## what a very large cache costs; ENTRIES=10000000 takes 6 GB and a quarter of an hour, the default a minute
	$(CARGO) run --release -p mcache-benches --bin server-bench -- --limits $${ENTRIES-200000}

.PHONY: bench-growth
bench-growth: build ## what an operation costs as a cache grows; writes docs/results/growth.*; the default of ENTRIES, 10000000, takes 8 GB
	$(CARGO) run --release -p mcache-benches --bin server-bench -- --growth $${ENTRIES-10000000}

.PHONY: docs
docs: ## the API documentation, in target/doc
	$(CARGO) doc --workspace --no-deps

.PHONY: clean
clean: ## remove everything built
	$(CARGO) clean
