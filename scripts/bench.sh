#!/usr/bin/env bash
# Runs benchmarks one after the other, those that are named or all; each writes its own file in docs/bench/.
set -euo pipefail
cd "$(dirname "$0")/.."
all=(cargo nginx packaging viewers migration latency)
names=("$@")
[ $# -gt 0 ] || names=("${all[@]}")
for name in "${names[@]}"; do
  [ -x "scripts/bench-$name.sh" ] || { echo "bench: there is no $name, only: ${all[*]}" >&2; exit 2; }
done
failed=()
for name in "${names[@]}"; do
  echo "== $name"
  "scripts/bench-$name.sh" || failed+=("$name")
done
[ ${#failed[@]} = 0 ] || { echo "bench: no figures, or goals missed: ${failed[*]}" >&2; exit 1; }
