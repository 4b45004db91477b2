#!/usr/bin/env bash
# Runs what `cargo bench` measures, each in its own process, and writes the figures to docs/bench/cargo.md.
set -euo pipefail
cd "$(dirname "$0")/.."
out=docs/bench/cargo.md
raw=$(mktemp)
trap 'rm -f "$raw"' EXIT
cargo bench --workspace --exclude e2e --locked 2>/dev/null | tee "$raw"
{
  echo "# What cargo bench measures"
  echo "Command: \`scripts/bench-cargo.sh\`. Machine: $(nproc) cores, $(grep -m 1 'model name' /proc/cpuinfo | cut -d : -f 2 | xargs), $(awk '/MemTotal/ { printf "%.0f GiB", $2 / 1048576 }' /proc/meminfo), Linux $(uname -r), $(rustc --version | cut -d ' ' -f 1,2), $(date -u +%F)."
  echo
  echo "| benchmark | time | throughput |"
  echo "|---|---|---|"
  # Criterion prints the name, then time and throughput as [low middle high].
  awk '
    { line = $0 }
    /^[A-Za-z].*\// && /time:/ { name = $0; sub(/ *time:.*/, "", name) }
    /^[A-Za-z].*\// && !/time:/ { name = $0; sub(/ +$/, "", name) }
    /time:/ { split(line, parts, /[][]/); split(parts[2], t, " "); time = t[3] " " t[4] }
    /thrpt:/ && !/change/ { split(line, parts, /[][]/); split(parts[2], t, " "); print "| " name " | " time " | " t[3] " " t[4] " |" }
  ' "$raw"
  echo
  # Benchmarks with a harness of their own print such lines.
  sed -n 's/^FIGURE /- /p' "$raw"
} >"$out"
echo "written to $out"
