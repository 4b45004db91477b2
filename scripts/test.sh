#!/usr/bin/env bash
# Every test, cheapest first; stops at the first failure. FISHLADDER_STRICT=1 turns skips into failures. `scripts/test.sh check`
# leaves out what needs a running server.
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

# `--test NAME` for each of these files; their names differ in all packages.
named() { for file in "$@"; do printf -- '--test\n%s\n' "$(basename "$file" .rs)"; done; }

# The same packages in each step: of others cargo would choose other features of the dependencies, and build them once more. The
# program has tokio's clock for tests in it by that, which nothing in it stops.
all=(--release --workspace --locked)
mapfile -t units < <(named packager/tests/*.rs server/*/tests/*.rs)
# Latency and load are measured with nothing else running; the others wait for real time more than they compute.
alone=(tests/tests/browser.rs tests/tests/load.rs)
others=()
for file in tests/tests/*.rs; do [[ " ${alone[*]} " == *" $file "* ]] || others+=("$file"); done
mapfile -t alone < <(named "${alone[@]}")
mapfile -t others < <(named "${others[@]}")

step "formatting" cargo fmt --all --check
step "licences, bans and sources of dependencies" cargo deny --log-level error check licenses bans sources
step "pages" pages
step "clippy" cargo clippy "${all[@]}" --all-targets -- -D warnings
step "build" cargo build "${all[@]}" --bins --tests
step "unit and property tests" cargo test "${all[@]}" --lib --bins "${units[@]}"
[ "${1:-}" != check ] || exit 0
# A minute for the first time, seconds afterwards.
step "Debian 13's GStreamer" scripts/test-trixie.sh
# A failed check prints what was seen; a backtrace of the test's executor would only bury it.
export RUST_BACKTRACE=0
step "end to end in the browser and under load" cargo test "${all[@]}" "${alone[@]}" -- --test-threads=1
step "end to end" cargo test "${all[@]}" "${others[@]}" -- --test-threads=2
