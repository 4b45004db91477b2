# Fishladder's commands. `make run` and `make test` install what is missing; the rest expects it to be there.
SHELL := /bin/bash
.PHONY: run test test-gpu test-trixie bench check fmt web build soak clean help

help:
	@echo "make run    install what is missing, build, serve http://127.0.0.1:8080 with the channel demo live"
	@echo "make test   install what is missing, run every test"
	@echo "make bench  run every benchmark, some 80 minutes, and write docs/bench/; ONLY=\"migration nginx\" runs those"
	@echo "make soak   play for FISHLADDER_SOAK_SECONDS (60) with every kind of player at once"
	@echo "make test-gpu  what only an NVIDIA GPU can show; skipped aloud without one"
	@echo "make check  the part of make test that needs no running server: formatting, pages, clippy, unit tests"

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

# On a machine that does nothing else: figures of a busy one say nothing.
bench:
	@scripts/setup.sh test
	@scripts/setup.sh bench
	@$(MAKE) --no-print-directory build
	@scripts/bench.sh $(ONLY)

soak:
	@scripts/setup.sh test
	@$(MAKE) --no-print-directory build
	cargo test --release -p e2e --locked --test soak -- --ignored --nocapture

# One profile for running, testing and benchmarking. What make test builds has tokio's clock for tests in it as well, so the first
# build of the other kind builds some dependencies anew.
build: web
	cargo build --release --locked

web: web/dist/index.html

web/dist/index.html: $(shell find web -path web/node_modules -prune -o -path web/dist -prune -o -type f -print 2>/dev/null)
	cd web && npm ci --no-audit --no-fund --silent && npm run build --silent
	@touch $@

check:
	@scripts/test.sh check

fmt:
	cargo fmt --all

clean:
	cargo clean
	rm -rf web/dist web/node_modules tests/browser/node_modules .venv
