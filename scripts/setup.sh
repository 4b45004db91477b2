#!/usr/bin/env bash
# Installs what is missing for `run`, `test` or `bench`, on Debian, as root or through sudo. Says plainly what it cannot do.
set -euo pipefail
cd "$(dirname "$0")/.."
purpose=${1:?run, test or bench}

fail() {
  echo "fishladder: $*" >&2
  exit 1
}

# What building and serving needs.
packages=(
  build-essential pkg-config ca-certificates
  libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev
  gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly gstreamer1.0-libav
  fonts-dejavu-core
)
if [ "$purpose" = bench ]; then
  # Clients that are faster than the servers, to compare servers.
  packages+=(wrk nghttp2-client jq)
fi
if [ "$purpose" != run ]; then
  # Real clients and oracles: a cache, players, publishers, an RTSP camera, a browser.
  packages+=(nginx-light ffmpeg gstreamer1.0-tools gstreamer1.0-x chromium python3-venv python3-gi gir1.2-gst-rtsp-server-1.0 curl)
fi

# Node.js builds the pages; whoever has one from elsewhere keeps it.
command -v node >/dev/null || packages+=(nodejs)
command -v npm >/dev/null || packages+=(npm)

missing=()
if command -v dpkg-query >/dev/null; then
  for package in "${packages[@]}"; do
    dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
  done
else
  echo "fishladder: this is not Debian; make sure that the counterparts of these packages are installed: ${packages[*]}" >&2
fi
if [ ${#missing[@]} -gt 0 ]; then
  if [ "$(id -u)" = 0 ]; then sudo=(); elif command -v sudo >/dev/null; then sudo=(sudo); else
    fail "missing Debian packages, and neither root nor sudo to install them: ${missing[*]}"
  fi
  echo "fishladder: installing ${missing[*]}"
  "${sudo[@]}" apt-get update -qq || fail "apt-get update failed: is there a network?"
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
    fail "apt-get could not install: ${missing[*]}"
fi

version_at_least() { # have, want
  [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]
}
command -v cargo >/dev/null || fail "Rust is missing: install 1.92 or newer with rustup (https://rustup.rs); Debian's own is too old"
rust=$(rustc --version | cut -d ' ' -f 2)
version_at_least "$rust" 1.92.0 || fail "Rust $rust is too old: 1.92 or newer is needed (rustup update)"
node=$(node --version 2>/dev/null | tr -d v) || fail "Node.js is missing: version 18.20 or newer builds the pages"
version_at_least "$node" 18.20.0 || fail "Node.js $node is too old: 18.20 or newer is needed"
command -v npm >/dev/null || fail "npm is missing"

if [ "$purpose" = test ]; then
  # A WebRTC publisher that is not a browser.
  if [ ! -x .venv/bin/python ] || ! .venv/bin/python -c 'import aiortc' 2>/dev/null; then
    echo "fishladder: installing aiortc into .venv"
    python3 -m venv .venv && .venv/bin/python -m pip install -q -r tests/clients/requirements.txt ||
      fail "aiortc could not be installed from PyPI"
  fi
  if [ ! -d tests/browser/node_modules/playwright-core ]; then
    (cd tests/browser && npm ci --no-audit --no-fund --silent) || fail "npm could not install tests/browser"
  fi
  # Licences, sources and bans of the dependencies.
  command -v cargo-deny >/dev/null || {
    echo "fishladder: installing cargo-deny"
    CARGO_TARGET_DIR=target/tools cargo install cargo-deny --version 0.20.2 --locked --quiet ||
      fail "cargo-deny could not be installed from crates.io"
  }
fi
