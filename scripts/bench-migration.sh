#!/usr/bin/env bash
# What drains, dead workers and lost devices cost viewers: eight channels on four simulated devices. Some three minutes. Writes
# docs/bench/migration.md; OUT=/tmp/migration.md for a look. The machine should do nothing else.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${OUT:-docs/bench/migration.md}
raw=$(mktemp)
trap 'rm -f "$raw"' EXIT
[ -x "${FISHLADDER_BIN:-target/release/fishladder}" ] || { echo "bench-migration: make build comes first" >&2; exit 1; }
FISHLADDER_STRICT=1 cargo test --release -p e2e --locked --test migration -- --ignored --nocapture | tee "$raw"
grep -q '^FIGURE' "$raw"
{
  echo "# Migrations"
  echo "Eight watched channels (320x180 in, one rung of 90 lines and AAC out, parts of 0.2 s, a key frame every second) on four simulated devices, which are worker processes that encode on the CPU."
  echo
  echo "Command: \`scripts/bench-migration.sh\`. Machine: $(nproc) cores, $(grep -m 1 'model name' /proc/cpuinfo | cut -d : -f 2 | xargs), $(awk '/MemTotal/ { printf "%.0f GiB", $2 / 1048576 }' /proc/meminfo), Linux $(uname -r), $(rustc --version | cut -d ' ' -f 1,2), $(date -u +%F)."
  echo
  sed -n 's/^FIGURE In/\nIn/p; s/^FIGURE //p' "$raw"
  echo
  echo "- *nothing*: the same viewers while nothing happens; a pause is the time between two playlists with something new."
  echo "- *drain*: a device with three ladders; each moves at its next key frame, the new worker started before the old one ends."
  echo "- *worker killed*: SIGKILL to a device's worker; its sessions begin again in a new one, with a replay of the GOP."
  echo "- *device lost*: the worker ends with the code for a lost device; its sessions begin again on other devices."
  echo
  echo "Lost frames are counted by ffprobe in what is listed afterwards, of the channels that were struck. The limits that every change is held to are in \`tests/tests/fleet.rs\`."
} >"$out"
echo "written to $out"
