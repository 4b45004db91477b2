#!/usr/bin/env bash
# Measures viewers, held requests and abuse on one 600 kbit/s channel with separate audio, all on this machine, and writes
# docs/bench/viewers.md. Fewer steps for a quick look: STEPS=100 SECONDS_EACH=5 HELD=100 ABUSE= OUT=/tmp/viewers.md.
set -euo pipefail
cd "$(dirname "$0")/.."

steps=${STEPS:-100 250 500 1000 1500 2000 2500 3000 4000 6000 8000 10000}
seconds=${SECONDS_EACH:-20}
held=${HELD:-10000}
abuse_viewers=${ABUSE_VIEWERS:-500}
abusers=${ABUSERS:-200}
abuse=${ABUSE-slow-headers slow-read header-bomb range-junk directive-junk connection-flood}
out=${OUT:-docs/bench/viewers.md}
server=${FISHLADDER_BIN:-target/release/fishladder}
load=${FISHLADDER_LOAD_BIN:-target/release/fishladder-load}
# The goal: publish to last byte at the 99th percentile.
goal_ms=150

fail() {
  echo "bench-viewers: $*" >&2
  exit 1
}
for program in ffmpeg jq curl; do command -v "$program" >/dev/null || fail "$program is missing"; done
for program in "$server" "$load"; do [ -x "$program" ] || fail "$program is missing: make build"; done

# Up to four connections for each viewer, on either side; whoever may not raise the limit gets as far as it allows.
ulimit -n 100000 2>/dev/null || ulimit -n "$(ulimit -Hn)"
files=$(ulimit -n)

folder=$(mktemp -d)
pids=()
cleanup() {
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  rm -rf "$folder"
}
trap cleanup EXIT

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
wait_for() { # seconds, what, command...
  local deadline=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $deadline ] || fail "waited in vain for $what: $(tail -n 5 "$folder/log")"
    sleep 0.2
  done
}

port=$(free_port)
base=http://127.0.0.1:$port
video=$((24000 + RANDOM % 4000 * 2))
audio=$((video + 8))
ffmpeg -nostdin -v error -re -f lavfi -i testsrc2=size=640x360:rate=30 -re -f lavfi -i sine=frequency=440:sample_rate=48000 \
  -map 0:v -c:v libx264 -pix_fmt yuv420p -preset ultrafast -threads 1 -b:v 600k -maxrate 600k -bufsize 300k \
  -g 60 -keyint_min 60 -sc_threshold 0 -f rtp "rtp://127.0.0.1:$video" \
  -map 1:a -ac 2 -ar 48000 -c:a aac -b:a 96k -f rtp "rtp://127.0.0.1:$audio" -sdp_file "$folder/sdp" 2>"$folder/ffmpeg" &
pids+=($!)
"$server" serve --set "http.listen=127.0.0.1:$port" --set "whip.udp_listen=127.0.0.1:$(free_port)" \
  --set "http.max_connections=$files" >/dev/null 2>"$folder/log" &
pid=$!
pids+=("$pid")
wait_for 20 "the server" curl -fs "$base/readyz"
wait_for 20 "ffmpeg's SDP" grep -q 'a=rtpmap.*\(mpeg4-generic\|MPEG4-GENERIC\)' "$folder/sdp"
jq -Rs '{source: {rtp: {sdp: .}}, ladder: "passthrough"}' "$folder/sdp" |
  curl -fsS -X PUT -H 'content-type: application/json' --data-binary @- "$base/api/v1/channels/bench" >/dev/null
url=$base/live/bench/index.m3u8
wait_for 30 "the channel" curl -fs "$url"
# A whole window, so that the server's memory has stopped growing before it is compared.
sleep 30

mkdir -p "$(dirname "$out")"
report=$folder/report
{
  echo "# Viewers"
  echo "One 600 kbit/s channel with separate audio, 200 ms parts; server, generator and ffmpeg share the machine. Each viewer"
  echo "follows video and audio with blocking reloads and fetches every part: 20 requests a second over kept-alive HTTP/1.1"
  echo "connections. Latency runs from the first listing of a part to anyone to its last byte at each viewer."
  echo
  echo "![Latency and cost against the number of viewers](viewers.svg)"
  echo
  echo "With two connections reloads and parts of a rendition take turns on one; with four, as in browsers, each has its own."
  echo
  echo "Command: \`scripts/bench-viewers.sh\`. Machine: $(nproc) cores, $(grep -m 1 'model name' /proc/cpuinfo | cut -d : -f 2 | xargs), $(awk '/MemTotal/ { printf "%.0f GiB", $2 / 1048576 }' /proc/meminfo), Linux $(uname -r), $(rustc --version | cut -d ' ' -f 1,2). $seconds s each, $(date -u +%F)."
  echo
  echo "## Held requests"
  echo "| blocking reloads held at once | server RSS before | while held | bytes each | freed after | errors |"
  echo "|---|---|---|---|---|---|"
} >"$report"
# First, while the server's memory has held no others: what it has freed it may keep for a while.
"$load" "$url" --hold "$held" --pid "$pid" --ramp $((held / 1000 + 1)) --seconds 15 --json >"$folder/json" || [ $? = 1 ]
jq -r '"| \(.requests) (never fewer than \(.fewest_held)) | \(.rss_before_kib / 1024 | round) MiB | \(.rss_held_kib / 1024 | round) MiB | \(.bytes_per_request) | \(if .freed_seconds then "\(.freed_seconds * 10 | round / 10) s" else "not within 60 s (\(.rss_after_kib / 1024 | round) MiB)" end) | \(.errors) |"' \
  "$folder/json" | tee -a "$report"

follow() { # connections a viewer, options...: a row for each step
  local each=$1 highest=0 held_so_far=yes viewers
  shift
  {
    echo
    echo "## Viewers with $each connections each"
    echo "| viewers | requests/s | Mbit/s | p50 ms | p95 ms | p99 ms | max ms | errors | server cores | server MiB | generator cores |"
    echo "|---|---|---|---|---|---|---|---|---|---|---|"
  } >>"$report"
  for viewers in $steps; do
    if [ $((viewers * each + 500)) -gt "$files" ]; then
      echo "| $viewers | not measured: $files open files are allowed | | | | | | | | | |" >>"$report"
      continue
    fi
    "$load" "$url" --viewers "$viewers" --ramp $((viewers / 200 + 1)) --seconds "$seconds" --pid "$pid" --json "$@" >"$folder/json" || [ $? = 1 ]
    jq -r --arg viewers "$viewers" '.load | def ms: if . == null then "-" else (. * 10 | round / 10 | tostring) end;
      "| \($viewers) | \(.requests_per_second | round) | \(.bytes * 8 / 1e6 / .seconds | round) | \(.publish_to_part.p50_ms | ms) | \(.publish_to_part.p95_ms | ms) | \(.publish_to_part.p99_ms | ms) | \(.publish_to_part.max_ms | ms) | \(if .errors == 0 then 0 else "\(.errors) \(.errors_by_kind)" end) | \(.server_cpu_cores * 100 | round / 100) | \(.server_rss_kib / 1024 | round) | \(.own_cpu_cores * 100 | round / 100) |"' \
      "$folder/json" | tee -a "$report"
    if [ "$held_so_far" = yes ] && jq -e --argjson goal $goal_ms '.fine and .load.publish_to_part.p99_ms <= $goal' "$folder/json" >/dev/null; then
      highest=$viewers
    else
      held_so_far=no
    fi
    # Far beyond what this machine carries nothing more is to be learnt.
    jq -e '.load.publish_to_part.p50_ms <= 2000' "$folder/json" >/dev/null || break
  done
  {
    echo
    echo "**$highest viewers** is the highest number of these at which this and all lower ones hold p99 ≤ $goal_ms ms without an error."
  } >>"$report"
}
echo "two connections each"
follow 2 --one-connection
echo "four connections each"
follow 4
{
  echo
  echo "## Abuse"
  echo "$abuse_viewers honest viewers alone, then beside $abusers abusers of one kind."
  echo
  echo "| abuse | p99 alone ms | p99 beside ms | moved | honest errors | abusers saw |"
  echo "|---|---|---|---|---|---|"
} >>"$report"
for kind in $abuse; do
  "$load" "$url" --viewers "$abuse_viewers" --ramp $((abuse_viewers / 200 + 1)) --seconds "$seconds" --pid "$pid" --abuse "$kind" --abusers "$abusers" --json \
    >"$folder/json" || [ $? = 1 ]
  jq -r --arg kind "$kind" 'def ms: if . == null then "-" else (. * 10 | round / 10 | tostring) end;
    "| \($kind) | \(.load.publish_to_part.p99_ms | ms) | \(.abused.publish_to_part.p99_ms | ms) | \(.p99_moved_percent | ms) % | \(.load.errors + .abused.errors) | \(.abuse | tostring | gsub("[{}\"]"; "") | gsub(","; ", ") | gsub(":"; " × ")) |"' \
    "$folder/json" | tee -a "$report"
done
mv "$report" "$out"
scripts/plot-viewers.py "$out" "${out%.md}.svg"
echo "written to $out"
