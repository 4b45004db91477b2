#!/usr/bin/env bash
# Requests a second beside nginx that serves the same bytes from memory: one worker each on core 0, the same client on core 1,
# in turn. nginx runs twice: with its built-in settings, and with sendfile and open_file_cache, which spare it the copy of each
# file and opening it. Writes docs/bench/nginx.md. ROUNDS=1 SECONDS_EACH=2 ROWS="0 1" OUT=/tmp/nginx.md for a quick look.
set -euo pipefail
cd "$(dirname "$0")/.."

rounds=${ROUNDS:-3}
seconds=${SECONDS_EACH:-5}
out=${OUT:-docs/bench/nginx.md}
# Objects to measure: 0 the playlist, 1 the part, 2 the segment; and over what.
rows=${ROWS:-0 1 2}
ways=${WAYS:-clear tls}
server=${FISHLADDER_BIN:-target/release/fishladder}

fail() {
  echo "bench-nginx: $*" >&2
  exit 1
}
for program in ffmpeg jq curl nginx wrk h2load openssl taskset; do command -v "$program" >/dev/null || fail "$program is missing"; done
[ -x "$server" ] || fail "$server is missing: make build"
[ "$(nproc)" -ge 2 ] || fail "two cores are needed"

folder=$(mktemp -d /dev/shm/fishladder-bench.XXXXXX)
# nginx drops its rights.
chmod 755 "$folder"
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
    sleep 0.2
  done
}

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost \
  -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout "$folder/key.pem" -out "$folder/cert.pem" 2>/dev/null

# 4 Mbit/s, so that a part of 200 ms is about 100 KB and a segment of 2 s about 1 MB.
publish() { # writes the channel's PUT to channel.json
  local video=$((24000 + RANDOM % 4000 * 2)) audio
  audio=$((video + 8))
  rm -f "$folder/sdp"
  ffmpeg -nostdin -v error -re -f lavfi -i "testsrc2=size=640x360:rate=30,noise=alls=60:allf=t" -re -f lavfi -i sine=frequency=440:sample_rate=48000 \
    -map 0:v -c:v libx264 -pix_fmt yuv420p -preset ultrafast -threads 1 -b:v 4200k -minrate 4200k -maxrate 4200k -bufsize 1000k -nal-hrd cbr \
    -g 60 -keyint_min 60 -sc_threshold 0 -f rtp "rtp://127.0.0.1:$video" \
    -map 1:a -ac 2 -ar 48000 -c:a aac -b:a 96k -f rtp "rtp://127.0.0.1:$audio" -sdp_file "$folder/sdp" 2>"$folder/ffmpeg.log" &
  publisher=$!
  pids+=("$publisher")
  wait_for 20 "ffmpeg's SDP" grep -qi 'a=rtpmap.*mpeg4-generic' "$folder/sdp"
  jq -Rs '{source: {rtp: {sdp: .}}, ladder: "passthrough"}' "$folder/sdp" >"$folder/channel.json"
}
serve() { # name, further arguments: starts a server on core 0 whose channel has a whole window
  local name=$1 port
  shift
  port=$(free_port)
  taskset -c 0 "$server" serve --set "http.listen=127.0.0.1:$port" --set "whip.udp_listen=127.0.0.1:$(free_port)" "$@" >/dev/null 2>"$folder/$name.log" &
  pids+=("$!")
  echo "$port" >"$folder/$name.port"
}

publish
serve clear
clear=$(cat "$folder/clear.port")
wait_for 20 "the server" curl -fs "http://127.0.0.1:$clear/readyz"
curl -fsS -X PUT -H 'content-type: application/json' --data-binary @"$folder/channel.json" "http://127.0.0.1:$clear/api/v1/channels/bench" >/dev/null
wait_for 30 "the channel" curl -fs "http://127.0.0.1:$clear/live/bench/index.m3u8"
sleep 12
kill "$publisher"
sleep 1

# The publisher is gone: what is listed stays, and nothing runs but the server.
plain=http://127.0.0.1:$clear
media=$plain/live/bench/src
curl -fsS "$media/index.m3u8" >"$folder/list"
pick() { # wanted bytes, URIs: the one whose size is nearest
  local wanted=$1 best='' off=999999999 size difference
  shift
  for uri in "$@"; do
    size=$(curl -fsS "$media/$uri" | wc -c)
    difference=$((size > wanted ? size - wanted : wanted - size))
    if [ "$difference" -lt "$off" ]; then best=$uri off=$difference; fi
  done
  echo "$best"
}
mapfile -t parts < <(grep -o 'EXT-X-PART:[^ ]*URI="[^"]*"' "$folder/list" | grep -v GAP | sed 's/.*URI="//; s/"//' | tail -20)
mapfile -t segments < <(grep '^[0-9]*\.m4s' "$folder/list" | tail -6)
part=$(pick 100000 "${parts[@]}")
segment=$(pick 1000000 "${segments[@]}")
objects=("live/bench/index.m3u8" "live/bench/src/$part" "live/bench/src/$segment")
names=("1 KB playlist" "100 KB part" "1 MB segment")
clear_goals=(1.2 1.8 1.15)
mkdir -p "$folder/www/live/bench/src"
for object in "${objects[@]}"; do curl -fsS "$plain/$object" >"$folder/www/$object"; done

# The same server over TLS: it must have the same media, so it gets the same stream.
publish
serve tls --set "http.tls.certificate=$folder/cert.pem" --set "http.tls.key=$folder/key.pem"
tls=$(cat "$folder/tls.port")
wait_for 20 "the server" curl -fsk "https://127.0.0.1:$tls/readyz"
curl -fsSk -X PUT -H 'content-type: application/json' --data-binary @"$folder/channel.json" "https://127.0.0.1:$tls/api/v1/channels/bench" >/dev/null
wait_for 30 "the channel" curl -fsk "https://127.0.0.1:$tls/live/bench/index.m3u8"
sleep 12
kill "$publisher"
sleep 1
media=https://127.0.0.1:$tls/live/bench/src
curl() { command curl -k "$@"; }
curl -fsS "$media/index.m3u8" >"$folder/list"
mapfile -t parts < <(grep -o 'EXT-X-PART:[^ ]*URI="[^"]*"' "$folder/list" | grep -v GAP | sed 's/.*URI="//; s/"//' | tail -20)
mapfile -t segments < <(grep '^[0-9]*\.m4s' "$folder/list" | tail -6)
tls_objects=("live/bench/index.m3u8" "live/bench/src/$(pick 100000 "${parts[@]}")" "live/bench/src/$(pick 1000000 "${segments[@]}")")
for object in "${tls_objects[@]}"; do curl -fsS "https://127.0.0.1:$tls/$object" >"$folder/www/$object"; done

plain_clear=$(free_port)
plain_tls=$(free_port)
tuned_clear=$(free_port)
tuned_tls=$(free_port)
cat >"$folder/nginx.conf" <<CONF
worker_processes 1;
worker_cpu_affinity 01;
daemon off;
pid $folder/nginx.pid;
error_log $folder/nginx.log;
events { worker_connections 4096; }
http {
  types { application/vnd.apple.mpegurl m3u8; video/mp4 m4s; }
  access_log off;
  keepalive_requests 1000000000;
  client_body_temp_path $folder/body;
  proxy_temp_path $folder/proxy;
  fastcgi_temp_path $folder/fastcgi;
  uwsgi_temp_path $folder/uwsgi;
  scgi_temp_path $folder/scgi;
  http2_max_requests 1000000000;
  ssl_certificate $folder/cert.pem;
  ssl_certificate_key $folder/key.pem;
  ssl_protocols TLSv1.3;
  server { listen 127.0.0.1:$plain_clear; listen 127.0.0.1:$plain_tls ssl http2; root $folder/www; }
  server {
    listen 127.0.0.1:$tuned_clear;
    listen 127.0.0.1:$tuned_tls ssl http2;
    root $folder/www;
    sendfile on;
    tcp_nopush on;
    open_file_cache max=1000 inactive=60s;
  }
}
CONF
nginx -p "$folder" -c "$folder/nginx.conf" 2>>"$folder/nginx.log" &
pids+=("$!")
wait_for 10 "nginx" curl -fs "http://127.0.0.1:$tuned_clear/${objects[0]}"

h1() { taskset -c 1 wrk -t1 -c64 -d"${seconds}s" "$1" | awk '/Requests\/sec/ { print $2 } /Socket errors|Non-2xx/ { print "ERROR" $0 > "/dev/stderr" }'; }
h2() { taskset -c 1 h2load -t1 -c64 -m1 -D "$seconds" "$1" 2>/dev/null | awk '/^finished in/ { print $4 }'; }
median() { sort -n | awk '{ a[NR] = $1 } END { print a[int((NR + 1) / 2)] }'; }

report=$folder/report
compare() { # how, name, goal, our URL, URL of nginx as built, URL of the tuned one
  local ours=() plain=() tuned=() to_plain=() to_tuned=() mine first second
  for _ in $(seq "$rounds"); do
    first=$("$1" "$5")
    mine=$("$1" "$4")
    second=$("$1" "$6")
    ours+=("$mine") plain+=("$first") tuned+=("$second")
    to_plain+=("$(awk -v a="$mine" -v b="$first" 'BEGIN { printf "%.3f", a / b }')")
    to_tuned+=("$(awk -v a="$mine" -v b="$second" 'BEGIN { printf "%.3f", a / b }')")
  done
  local size ratio
  size=$(curl -fsSk "$4" | wc -c)
  ratio=$(printf '%s\n' "${to_plain[@]}" | median)
  printf '| %s | %d | %.0f | %.0f | %.2f | %s | %s | %.0f | %.2f |\n' "$2" "$size" \
    "$(printf '%s\n' "${ours[@]}" | median)" "$(printf '%s\n' "${plain[@]}" | median)" "$ratio" "$3" \
    "$(awk -v a="$ratio" -v b="$3" 'BEGIN { print (a >= b ? "yes" : "no") }')" \
    "$(printf '%s\n' "${tuned[@]}" | median)" "$(printf '%s\n' "${to_tuned[@]}" | median)" | tee -a "$report"
}
{
  echo "# Beside nginx"
  echo "Requests a second of Fishladder and of nginx $(nginx -v 2>&1 | sed 's/.*nginx.//') that serves the same bytes from tmpfs without a log: one worker each on"
  echo "core 0, one client with 64 kept-alive connections on core 1 (wrk for HTTP/1.1, h2load for HTTP/2), in turn, the median of"
  echo "$rounds rounds of $seconds s. *nginx* has its built-in settings; *tuned* has sendfile, tcp_nopush and open_file_cache: it opens"
  echo "no file, and in clear the kernel sends the file's own pages without a copy. The goals are for nginx."
  echo
  echo "Command: \`scripts/bench-nginx.sh\`. Machine: $(nproc) cores, $(grep -m 1 'model name' /proc/cpuinfo | cut -d : -f 2 | xargs), $(awk '/MemTotal/ { printf "%.0f GiB", $2 / 1048576 }' /proc/meminfo), Linux $(uname -r), $(rustc --version | cut -d ' ' -f 1,2), $(date -u +%F)."
  echo
  echo "| object | bytes | Fishladder | nginx | ratio | goal | held | tuned | ratio |"
  echo "|---|---|---|---|---|---|---|---|---|"
} >"$report"
for way in $ways; do
  for n in $rows; do
    case $way in
      clear)
        object=${objects[n]}
        compare h1 "${names[n]}, HTTP/1.1" "${clear_goals[n]}" "$plain/$object" "http://127.0.0.1:$plain_clear/$object" "http://127.0.0.1:$tuned_clear/$object"
        ;;
      tls)
        object=${tls_objects[n]}
        for client in h1 h2; do
          compare $client "${names[n]}, HTTP/$([ $client = h1 ] && echo 1.1 || echo 2) over TLS" 1.0 "https://127.0.0.1:$tls/$object" \
            "https://127.0.0.1:$plain_tls/$object" "https://127.0.0.1:$tuned_tls/$object"
        done
        ;;
    esac
  done
done
mkdir -p "$(dirname "$out")"
cp "$report" "$out"
echo "written to $out"
