#!/usr/bin/env bash
# What only a GPU can show: the engine's tests on every NVIDIA GPU of this host. Without one it skips aloud, and under
# FISHLADDER_STRICT=1 it fails.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! compgen -G '/dev/nvidia[0-9]*' >/dev/null; then
  if [ "${FISHLADDER_STRICT:-}" = 1 ]; then
    echo "FAILED: this host has no NVIDIA GPU (no /dev/nvidia0)" >&2
    exit 1
  fi
  echo "SKIPPED: this host has no NVIDIA GPU (no /dev/nvidia0)" >&2
  exit 0
fi
scripts/setup.sh run
command -v nvidia-smi >/dev/null && nvidia-smi --query-gpu=index,name,driver_version,memory.total --format=csv,noheader
# A list of elements that was made before the driver came would have none of the GPU's.
GST_REGISTRY=$(mktemp -u)
export GST_REGISTRY FISHLADDER_STRICT=1 RUST_BACKTRACE=0
trap 'rm -f "$GST_REGISTRY"' EXIT
profile=${FISHLADDER_PROFILE:---release}
[ "$profile" != dev ] || profile=
# One at a time: each test has the GPU for itself.
# shellcheck disable=SC2086
cargo test $profile --locked -p engine --test gpu -- --ignored --nocapture --test-threads=1 "$@"
