#!/usr/bin/env bash
# Every test, cheapest first; stops at the first failure. FISHLADDER_STRICT=1 turns skips into failures.
set -euo pipefail
cd "$(dirname "$0")/.."

step() {
  local start=$SECONDS name=$1
  shift
  echo "== $name"
  "$@" || { echo "== $name FAILED after $((SECONDS - start)) s" >&2; exit 1; }
  echo "== $name: $((SECONDS - start)) s"
}

pages() { (cd web && npm ci --no-audit --no-fund --silent && npm run check --silent && npm test --silent && npm run build --silent); }

step "formatting" cargo fmt --all --check
step "licences, bans and sources of dependencies" cargo deny --log-level error check licenses bans sources
step "pages" pages
step "build" cargo build --release --locked
step "clippy" cargo clippy --release --workspace --all-targets --locked -- -D warnings
step "unit and property tests" cargo test --release --workspace --exclude e2e --locked
# A minute for the first time, seconds afterwards.
step "Debian 13's GStreamer" scripts/test-trixie.sh
# A failed check prints what was seen; a backtrace of the test's executor would only bury it.
export RUST_BACKTRACE=0
# Latency and load are measured with nothing else running; the others wait for real time more than they compute.
others=()
for file in tests/tests/*.rs; do
  name=$(basename "$file" .rs)
  case $name in browser | load) ;; *) others+=(--test "$name") ;; esac
done
step "end to end in the browser and under load" cargo test --release -p e2e --locked --test browser --test load -- --test-threads=1
step "end to end" cargo test --release -p e2e --locked --lib "${others[@]}" -- --test-threads=2
