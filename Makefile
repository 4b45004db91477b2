# Fishladder's commands. `make run` and `make test` install what is missing; the rest expects it to be there.
SHELL := /bin/bash
.PHONY: latency run test test-gpu test-trixie bench check fmt web build soak clean help

help:
	@echo "make run    install what is missing, build, serve http://127.0.0.1:8080 with the channel demo live"
	@echo "make test   install what is missing, run every test"
	@echo "make bench  run the benchmarks, write docs/bench/latest.md"
	@echo "make latency  measure glass to glass in Chromium, write docs/bench/glass-to-glass.md"
	@echo "make soak   play for FISHLADDER_SOAK_SECONDS (60) with every kind of player at once"
	@echo "make test-gpu  what only an NVIDIA GPU can show; skipped aloud without one"
	@echo "make check  the fast part of make test: formatting, clippy, unit tests"

run:
	@scripts/setup.sh run
	@$(MAKE) --no-print-directory build
	@exec target/release/fishladder serve --demo $(ARGS)

test:
	@scripts/setup.sh test
	@scripts/test.sh

# What only a GPU can show, on each NVIDIA GPU of this host.
test-gpu:
	@scripts/test-gpu.sh

# The stub driver's tests against Debian 13's GStreamer; make test runs it too.
test-trixie:
	@scripts/test-trixie.sh

bench:
	@scripts/setup.sh bench
	@scripts/bench.sh

soak:
	@scripts/setup.sh test
	@$(MAKE) --no-print-directory build
	cargo test --release -p e2e --locked --test soak -- --ignored --nocapture

# One profile for running, testing and benchmarking: dependencies are built once.
build: web
	cargo build --release --locked

web: web/dist/index.html

web/dist/index.html: $(shell find web -path web/node_modules -prune -o -path web/dist -prune -o -type f -print 2>/dev/null)
	cd web && npm ci --no-audit --no-fund --silent && npm run build --silent
	@touch $@

check:
	cargo fmt --all --check
	cargo clippy --release --workspace --all-targets --locked -- -D warnings
	cargo test --release --workspace --exclude e2e --locked

fmt:
	cargo fmt --all

clean:
	cargo clean
	rm -rf web/dist web/node_modules tests/browser/node_modules .venv

# Glass-to-glass latency and rung switches in Chromium: figures that a busy machine distorts. FISHLADDER_LATENCY_SECONDS=300 is
# the long form.
latency: build
	@scripts/setup.sh test
	@scripts/bench-latency.sh
