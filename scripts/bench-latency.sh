#!/usr/bin/env bash
# Measures glass to glass latency in Chromium and writes docs/bench/glass-to-glass.md. Needs a machine with nothing else to do.
# FISHLADDER_LATENCY_SECONDS (60) is how long each path is looked at; the goal for stalls is for 300. OUT=FILE writes elsewhere,
# ONLY=TEXT measures the tests with that text in their name.
set -euo pipefail
cd "$(dirname "$0")/.."

export FISHLADDER_LATENCY_SECONDS=${FISHLADDER_LATENCY_SECONDS:-60} FISHLADDER_STRICT=1
out=${OUT:-docs/bench/glass-to-glass.md}
raw=$(mktemp)
trap 'rm -f "$raw"' EXIT

tests=(chromium_publishes_and_hls_js_plays_with_low_latency parts_of_100_ms_bring_latency_down
  the_software_ladder_costs_little_latency_and_switching_rungs_none)
status=0
for test in "${tests[@]}"; do
  [[ $test == *"${ONLY:-}"* ]] || continue
  # A run that misses its bounds has figures too, and they must be seen.
  cargo test --release -p e2e --locked --test browser -- --exact "$test" --nocapture 2>&1 | tee -a "$raw" || status=$?
done
grep -q '^GLASS ' "$raw" || { echo "bench-latency: no figures" >&2; exit 1; }

machine="$(nproc) cores, $(grep -m 1 'model name' /proc/cpuinfo | cut -d : -f 2 | xargs), $(awk '/MemTotal/ { printf "%.0f GiB", $2 / 1048576 }' /proc/meminfo), Linux $(uname -r), $(date -u +%F)"
hls=$(sed -n 's/.*"version": "\(.*\)".*/\1/p' web/node_modules/hls.js/package.json)
{
  echo "# Glass to glass"
  echo "WHIP from Chromium to hls.js $hls at its own defaults in a second Chromium, 640 × 360 (the ladder: 960 × 540), 30 pictures a second, publisher,"
  echo "server and player on one machine. The clock is read off the picture as a bar code ten times a second."
  echo
  echo "Command: \`make latency\` (\`scripts/bench-latency.sh\`). Machine: $machine."
  echo
  echo "| path | seconds | p50, ms | p95, ms | stalls | goal for p50 | held |"
  echo "|---|---|---|---|---|---|---|"
  awk -F ' *[|] *' '
    /^GLASS / {
      goal = 1600
      if ($2 ~ /^passthrough, parts of 200ms/) goal = 950
      if ($2 ~ /^passthrough, parts of 100ms/) goal = 700
      held = ($4 <= goal && $5 <= $4 + 150 && $6 == 0) ? "yes" : "no"
      printf "| %s | %s | %s | %s | %s | %s | %s |\n", $2, $3, $4, $5, $6, goal, held
    }' "$raw"
  echo
  echo "Held is a run whose p50 is within its goal, whose p95 is at most 150 ms above its p50, and that did not stall once."
} >"$out"
cat "$out"
exit "$status"
