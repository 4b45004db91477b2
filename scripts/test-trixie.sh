#!/usr/bin/env bash
# Runs the stub driver's tests against Debian 13's GStreamer (1.26), whose NVIDIA elements have other names and properties
# than Debian 12's, in a root below target/ that debootstrap makes once (1.3 GB, a minute or two, needs root and a mirror).
# Skips aloud where no such root can be made, which is a failure where FISHLADDER_STRICT=1 and FISHLADDER_TRIXIE=1 are set:
# a host without root or without a mirror can still run every other test in earnest.
#
#   FISHLADDER_MIRROR   the Debian mirror; otherwise this host's own first Debian source
#   FISHLADDER_PROFILE  dev: cargo's dev profile; otherwise release, which make test has built anyway
set -euo pipefail
cd "$(dirname "$0")/.."
suite=trixie
root=$PWD/target/$suite/root

skip() {
  if [ "${FISHLADDER_STRICT:-}${FISHLADDER_TRIXIE:-}" = 11 ]; then
    echo "FAILED: $1" >&2
    exit 1
  fi
  echo "SKIPPED: $1" >&2
  exit 0
}

mirror() {
  if [ -n "${FISHLADDER_MIRROR:-}" ]; then
    echo "$FISHLADDER_MIRROR"
    return
  fi
  # One-line and deb822 sources; the security archive has no base system.
  { grep -hs '^deb ' /etc/apt/sources.list /etc/apt/sources.list.d/*.list; sed -n 's/^URIs: *//p' /etc/apt/sources.list.d/*.sources; } 2>/dev/null |
    grep -oE '(https?|file):[^ ]*/debian/?( |$)' | head -n 1 | tr -d ' '
}

make_root() {
  command -v debootstrap >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends debootstrap >/dev/null; } || skip "debootstrap is not installed"
  local from part=$root.part
  from=$(mirror) || true
  [ -n "$from" ] || skip "no Debian mirror among this host's sources; set FISHLADDER_MIRROR"
  rm -rf "$part"
  mkdir -p "$part"
  echo "making a Debian $suite root in target/$suite" >&2
  timeout 300 debootstrap --variant=minbase "$suite" "$part" "$from" >"$root.log" 2>&1 || { tail -n 5 "$root.log" >&2; skip "debootstrap failed"; }
  # debootstrap itself cannot choose among alternatives, which the plug-ins depend on.
  local plugins="gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly gstreamer1.0-libav"
  for file in /etc/apt/apt.conf.d/*proxy* /etc/resolv.conf; do [ ! -e "$file" ] || cp "$file" "$part${file%/*}/"; done
  # shellcheck disable=SC2086
  DEBIAN_FRONTEND=noninteractive timeout 300 chroot "$part" sh -c "apt-get update && apt-get install -y --no-install-recommends $plugins && apt-get clean" >>"$root.log" 2>&1 ||
    { tail -n 5 "$root.log" >&2; skip "the plug-ins could not be installed"; }
  mv "$part" "$root"
}

[ "$(id -u)" = 0 ] || skip "only root can make and enter a Debian $suite root"
unshare --mount true || skip "this host lets nobody mount"
[ -d "$root" ] || make_root

profile=${FISHLADDER_PROFILE:---release}
[ "$profile" != dev ] || profile=
# shellcheck disable=SC2086
test=$(cargo test $profile --locked --workspace --test stub_gpus --no-run 2>&1 | tee >(cat >&2) | sed -n 's/.*Executable.*(\(.*\))$/\1/p')
worker=$(dirname "$(dirname "$test")")/engine-worker
[ -x "$test" ] && [ -x "$worker" ] || { echo "cargo did not say where it built the tests" >&2; exit 1; }
mkdir -p "$root/opt/fishladder"
cp "$test" "$root/opt/fishladder/stub_gpus"
cp "$worker" "$root/opt/fishladder/engine-worker"
cc -std=gnu11 -O1 -Wall -Wextra -Werror -shared -fPIC -pthread -o "$root/opt/fishladder/driver.so" tests/stubs/driver.c
chroot "$root" dpkg-query -W -f 'GStreamer ${Version} of Debian '"$suite\n" libgstreamer1.0-0
# Mounts of its own, so that nothing stays mounted however this ends. Tools are there: nothing in it may be skipped.
enter='mount -t proc proc "$0/proc" && exec chroot "$0" "$@"'
env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp LC_ALL=C.UTF-8 RUST_BACKTRACE=0 FISHLADDER_STRICT=1 \
  FISHLADDER_STUB_LIBRARY=/opt/fishladder/driver.so FISHLADDER_ENGINE_WORKER=/opt/fishladder/engine-worker \
  unshare --mount sh -c "$enter" "$root" /opt/fishladder/stub_gpus "$@"
