#!/usr/bin/env bash
# Measures what packaging costs without encoding (CPU and memory for each of 1 to 100 RTP streams of 5 Mbit/s), and what the server
# adds to a frame's latency, on this machine; writes docs/bench/packaging.md.
# CLIP names a folder that keeps the clip for the next run. For a quick look: STREAMS="1 10" SECONDS_EACH=20 WARM=5 OUT=/tmp/packaging.md (memory counts only once windows are full: WARM=65).
set -euo pipefail
cd "$(dirname "$0")/.."

counts=${STREAMS:-1 10 50 100}
seconds=${SECONDS_EACH:-60}
# A whole window and what stays fetchable behind it, so that memory has stopped growing.
warm=${WARM:-65}
latency_seconds=${LATENCY_SECONDS:-60}
out=${OUT:-docs/bench/packaging.md}
server=${FISHLADDER_BIN:-target/release/fishladder}
load=${FISHLADDER_LOAD_BIN:-target/release/fishladder-load}
publish=${FISHLADDER_PUBLISH_BIN:-target/release/fishladder-publish}
# CPU-seconds per stream and minute.
goal_cpu=0.20

fail() {
  echo "bench-packaging: $*" >&2
  exit 1
}
for program in ffmpeg jq curl; do command -v "$program" >/dev/null || fail "$program is missing"; done
for program in "$server" "$load" "$publish"; do [ -x "$program" ] || fail "$program is missing: make build"; done

folder=$(mktemp -d /dev/shm/fishladder-bench.XXXXXX)
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
    [ $SECONDS -lt $deadline ] || fail "waited in vain for $what: $(tail -n 5 "$folder"/*.log)"
    sleep 0.1
  done
}
# A process and all that it started.
family() {
  local child
  echo "$1"
  for child in $(pgrep -P "$1"); do family "$child"; done
}
cpu() { # pid: milliseconds of CPU time, in user and kernel, of its family
  local pid sum=0 ticks
  for pid in $(family "$1"); do
    ticks=$(sed 's/.*) //' "/proc/$pid/stat" | awk '{ print $12 + $13 + $14 + $15 }')
    sum=$((sum + ticks * 10))
  done
  echo "$sum"
}
rss() { # pid: KiB of its family
  local pid sum=0
  for pid in $(family "$1"); do sum=$((sum + $(awk '/^VmRSS/ { print $2 }' "/proc/$pid/status"))); done
  echo "$sum"
}
# Datagrams that the kernel dropped at the sockets of ports FROM to TO.
dropped() {
  awk -v from="$1" -v to="$2" 'NR > 1 { split($2, a, ":"); port = strtonum("0x" a[2]); if (port >= from && port <= to) sum += $NF } END { print sum + 0 }' /proc/net/udp
}
command -v gawk >/dev/null || dropped() {
  python3 - "$1" "$2" <<'PY'
import sys
first, last = int(sys.argv[1]), int(sys.argv[2])
rows = [line.split() for line in open("/proc/net/udp")][1:]
print(sum(int(r[-1]) for r in rows if first <= int(r[1].split(":")[1], 16) <= last))
PY
}

media=${CLIP:-$folder}
if [ ! -f "$media/clip.aac" ]; then
  ffmpeg -nostdin -v error -f lavfi -i "testsrc2=size=1920x1080:rate=30,noise=alls=20:allf=t" -f lavfi -i "sine=frequency=440:sample_rate=48000" \
    -map 0:v -t 8 -pix_fmt yuv420p -c:v libx264 -preset superfast -profile:v main -bf 0 -g 30 -keyint_min 30 -sc_threshold 0 -flags +cgop \
    -b:v 5M -minrate 5M -maxrate 5M -bufsize 1M -f h264 "$media/clip.h264" \
    -map 1:a -t 8 -ac 2 -c:a aac -b:a 128k -f adts "$media/clip.aac"
fi
bytes=$(stat -c %s "$media/clip.h264")
[ "$bytes" -gt 4500000 ] && [ "$bytes" -lt 5500000 ] || fail "the clip has $bytes bytes instead of 5,000,000"
clip=(--video "$media/clip.h264" --audio "$media/clip.aac" --fps 30)

start_server() { # further arguments
  port=$(free_port)
  base=http://127.0.0.1:$port
  "$server" serve --set "http.listen=127.0.0.1:$port" --set "whip.udp_listen=127.0.0.1:$(free_port)" >/dev/null 2>"$folder/server.log" "$@" &
  pid=$!
  pids+=("$pid")
  wait_for 20 "the server" curl -fs "$base/readyz"
}
stop_server() {
  kill "$pid"
  wait "$pid" 2>/dev/null || true
}
put() { # channel, SDP
  jq -Rs '{source: {rtp: {sdp: .}}, ladder: "passthrough"}' "$2" |
    curl -fsS -X PUT -H 'content-type: application/json' --data-binary @- "$base/api/v1/channels/$1" >/dev/null
}
all_live() { [ "$(curl -fsS "$base/api/v1/channels" | jq '[.channels[] | select(.state == "live")] | length')" = "$1" ]; }

mkdir -p "$(dirname "$out")"
report=$folder/report
{
  echo "# Packaging without encoding"
  echo "RTP streams of 1080p30 H.264 at 5 Mbit/s (closed GOPs of 1 s) with AAC at 128 kbit/s, passed through: each a channel with its"
  echo "own LL-HLS playlists at the default settings (200 ms parts, 24 s window), nobody watching. One sender for all of them"
  echo "(\`fishladder-publish\`): a frame's packets in one system call at the frame's time, an AAC frame a packet. CPU is that of all"
  echo "the server's processes, user and kernel. Bytes kept: media in the window and what stays fetchable behind it."
  echo
  echo "Command: \`scripts/bench-packaging.sh\`. Machine: $(nproc) cores, $(grep -m 1 'model name' /proc/cpuinfo | cut -d : -f 2 | xargs), $(awk '/MemTotal/ { printf "%.0f GiB", $2 / 1048576 }' /proc/meminfo), Linux $(uname -r), $(rustc --version | cut -d ' ' -f 1,2). $seconds s each after $warm s, $(date -u +%F)."
  echo
  echo "| | streams | CPU s per stream-minute | RSS MB per stream | bytes kept, MB per stream | packets lost | packets sent, received |"
  echo "|---|---|---|---|---|---|---|"
} >"$report"

# So many ports for the largest step, four a stream, where no connection of this machine is given one.
first_port=$((20000 + RANDOM % 1000 * 4))

ffmpeg_cpu=
measure_ffmpeg() {
  local sdps=$folder/ffmpeg before
  mkdir -p "$sdps/out"
  "$publish" "${clip[@]}" --first-port "$first_port" --write-sdp "$sdps"
  ffmpeg -nostdin -v error -protocol_whitelist file,udp,rtp -i "$sdps/0.sdp" -c copy -f hls -hls_segment_type fmp4 -hls_time 2 \
    -hls_flags delete_segments "$sdps/out/index.m3u8" 2>"$folder/ffmpeg.log" &
  local one=$!
  pids+=("$one")
  # Its ports are open once it has read the SDP.
  wait_for 10 "ffmpeg's port" grep -qi ":$(printf %04X "$first_port") " /proc/net/udp
  "$publish" "${clip[@]}" --first-port "$first_port" --seconds $((seconds + 8)) >"$folder/sent" &
  local sender=$!
  pids+=("$sender")
  wait_for 20 "ffmpeg's playlist" test -s "$sdps/out/index.m3u8"
  before=$(cpu "$one")
  sleep "$seconds"
  ffmpeg_cpu=$(awk -v ms=$(($(cpu "$one") - before)) -v s="$seconds" 'BEGIN { printf "%.3f", ms / 1000 / s * 60 }')
  echo "| $(ffmpeg -version | awk 'NR == 1 { print $1, $3 }') \`-c copy -f hls -hls_segment_type fmp4 -hls_time 2\` | 1 | $ffmpeg_cpu | $(awk -v k="$(rss "$one")" 'BEGIN { printf "%.1f", k * 1.024 / 1000 }') | | | |" | tee -a "$report"
  kill "$one" "$sender" 2>/dev/null || true
  wait "$one" "$sender" 2>/dev/null || true
}

measure() { # streams
  local streams=$1 sdps=$folder/$1 before after n
  mkdir -p "$sdps"
  start_server
  "$publish" "${clip[@]}" --first-port "$first_port" --streams "$streams" --write-sdp "$sdps"
  for n in $(seq 0 $((streams - 1))); do put "s$n" "$sdps/$n.sdp"; done
  "$publish" "${clip[@]}" --first-port "$first_port" --streams "$streams" --seconds $((warm + seconds + 4)) >"$folder/sent" &
  local sender=$!
  pids+=("$sender")
  wait_for 20 "$streams live channels" all_live "$streams"
  sleep "$warm"
  before=$(cpu "$pid")
  sleep "$seconds"
  after=$(cpu "$pid")
  local memory kept
  memory=$(rss "$pid")
  kept=$(curl -fsS "$base/api/v1/channels" | jq '[.channels[].renditions[].retained_bytes] | add')
  local drops
  wait "$sender"
  drops=$(dropped "$first_port" $((first_port + 4 * streams - 1)))
  # The status is a second old at most.
  sleep 2
  curl -fsS "$base/api/v1/channels" >"$folder/channels"
  curl -fsS "$base/metrics" >"$folder/metrics"
  jq -r --slurpfile sent "$folder/sent" --argjson ms $((after - before)) --argjson s "$seconds" --argjson n "$streams" --argjson kib "$memory" \
    --argjson kept "$kept" --argjson drops "$drops" \
    'def fixed(d): . * pow(10; d) | round / pow(10; d);
     ([.channels[].source.packets] | add) as $received | ([.channels[].source | .lost + .refused] | add) as $lost |
     "| Fishladder | \($n) | \($ms / 1000 / $s * 60 / $n | fixed(3)) | \($kib * 1.024 / 1000 / $n | fixed(1)) | \($kept / 1e6 / $n | fixed(1)) | \($lost) (kernel \($drops), sender \($sent[0].unsent)) | \($sent[0].packets), \($received) |"' \
    "$folder/channels" | tee -a "$report"
  jq -c . "$folder/sent" >&2
  stop_server
}

measure_ffmpeg
for streams in $counts; do measure "$streams"; done
{
  echo
  echo "Goals: at most $goal_cpu CPU-seconds per stream-minute, at most a third of ffmpeg's, for 50 streams; RSS at most twice the window and 2 MB."
  echo "The window's 24 s are 15.4 MB, but a playlist lists up to 28 s (the segment that fills the window, and the open one), and each segment stays"
  echo "fetchable for as long again when it has left the playlist (bis 6.2.2): counted by what is listed the goal is 37 MB, by the 24 s 32.8 MB, which the"
  echo "media alone takes."
  echo "One core carries \`60 / (CPU s per stream-minute)\` such streams."
  echo
  echo "## Server-added latency"
  echo "From the last packet of a frame going into the server (a relay notes it) to the frame's bytes at a viewer that waits for the part,"
  echo "over one stream: a part's first frame waits for the part's end, which only the next part's first frame tells."
  echo
  echo "| part target ms | frames | p50 ms | p95 ms | p99 ms | max ms | goal: p95 at most | held |"
  echo "|---|---|---|---|---|---|---|---|"
} >>"$report"

if [ "$latency_seconds" != 0 ]; then
  start_server
  mkdir -p "$folder/latency"
  "$publish" "${clip[@]}" --first-port "$first_port" --write-sdp "$folder/latency"
  # The server listens elsewhere for the picture; the relay is where the sender sends.
  behind=$((first_port + 100))
  sed "s/^m=video [0-9]*/m=video $behind/" "$folder/latency/0.sdp" >"$folder/latency/relayed.sdp"
  put latency "$folder/latency/relayed.sdp"
  "$publish" "${clip[@]}" --first-port "$first_port" --seconds $((latency_seconds + 60)) >/dev/null &
  sender=$!
  pids+=("$sender")
  "$load" "$base/live/latency/index.m3u8" --added "$first_port:$behind" --seconds "$latency_seconds" --json >"$folder/added" || [ $? = 1 ]
  kill "$sender" 2>/dev/null || true
  jq -r '.packet_to_part as $a | def ms: . * 10 | round / 10;
    "| \(.part_target_ms) | \($a.count) | \($a.p50_ms | ms) | \($a.p95_ms | ms) | \($a.p99_ms | ms) | \($a.max_ms | ms) | \(.part_target_ms + 10) | \(if .fine then "yes" else "no" end) |"' \
    "$folder/added" | tee -a "$report"
  stop_server
fi
cp "$report" "$out"
echo "written to $out"
