// A stand-in for the server while working on the pages: made-up channels, a real HLS stream from ffmpeg, and the
// built pages under the server's own content security policy. Not part of the product.
//
//   node dev/mock.mjs [port]            then http://127.0.0.1:8089/
//   POST /mock?scenario=none|one|many   what /api/v1/channels answers; down: 500 to everything
//   POST /mock?devices=0|1|4|12         how many devices /api/v1/devices has
//   POST /mock?token=secret             asks for a bearer token from then on (token= switches it off)
//   POST /mock?whip=busy                how WHIP answers: none (404), busy (503), unauthorized (401)

import { spawn } from 'node:child_process';
import { createServer } from 'node:http';
import { mkdtempSync, rmSync } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { extname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { change, devices } from './devices.mjs';

const dist = fileURLToPath(new URL('../dist/', import.meta.url));
const csp =
  "default-src 'self'; img-src 'self' data:; media-src 'self' blob:; worker-src 'self' blob:; connect-src 'self'; style-src 'self'";
const types = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript',
  '.css': 'text/css',
  '.svg': 'image/svg+xml',
  '.m3u8': 'application/vnd.apple.mpegurl',
  '.mp4': 'video/mp4',
  '.m4s': 'video/iso.segment',
};

const mode = { scenario: process.env.MOCK ?? 'many', devices: '4', token: '', whip: 'busy' };
const added = new Map();
const started = Date.now();
let hls;

export async function start(port) {
  const server = createServer((req, res) => {
    handle(req, res).catch((error) => {
      if (!res.headersSent) res.writeHead(500);
      res.end(String(error));
    });
  });
  await new Promise((resolve, reject) => server.once('error', reject).listen(port, '127.0.0.1', resolve));
  return server;
}

async function handle(req, res) {
  const url = new URL(req.url, 'http://mock');
  const path = decodeURIComponent(url.pathname);
  if (path === '/mock') {
    Object.assign(mode, Object.fromEntries(url.searchParams));
    if (url.searchParams.has('scenario')) added.clear();
    return send(res, 200, mode);
  }
  if (mode.scenario === 'down' && !path.startsWith('/assets/')) return req.socket.destroy();
  if (path.startsWith('/api/v1/channels'))
    return api(req, res, path.slice('/api/v1/channels'.length).slice(1));
  if (path.startsWith('/api/v1/devices')) return fleet(req, res, path.split('/').slice(4));
  if (path.startsWith('/live/')) return live(res, path.split('/').slice(2));
  if (path.startsWith('/whip/')) return whip(req, res);
  return page(res, path);
}

async function api(req, res, name) {
  let body = '';
  for await (const chunk of req) body += chunk;
  if (req.method !== 'GET' && mode.token && req.headers.authorization !== `Bearer ${mode.token}`)
    return problem(res, 401, 'unauthorized', 'This needs the admin token.');
  if (!name) return send(res, 200, { channels: channels() });
  if (req.method === 'PUT') {
    const { source } = JSON.parse(body);
    if (source.rtp && !source.rtp.sdp.startsWith('v=0'))
      return problem(res, 422, 'bad-sdp', 'Line 1 of the SDP must be "v=0".');
    added.set(name, channel(name, { state: 'waiting', sourceKind: Object.keys(source)[0], messages: [] }));
    return send(res, 201, added.get(name));
  }
  if (req.method === 'DELETE') {
    added.set(name, null);
    return res.writeHead(204).end();
  }
  const found = channels().find((each) => each.name === name);
  return found
    ? send(res, 200, found)
    : problem(res, 404, 'no-such-channel', `There is no channel "${name}".`);
}

function fleet(req, res, [id, how]) {
  if (req.method !== 'GET' && mode.token && req.headers.authorization !== `Bearer ${mode.token}`)
    return problem(res, 401, 'unauthorized', 'This needs the admin token.');
  if (!id) return send(res, 200, devices(Number(mode.devices)));
  const done = req.method === 'POST' ? change(id, how, Number(mode.devices)) : null;
  return done ? send(res, 200, done) : problem(res, 404, 'no-such-device', `There is no device "${id}".`);
}

function whip(req, res) {
  if (mode.whip === 'unauthorized' && req.headers.authorization !== 'Bearer secret')
    return problem(res, 401, 'unauthorized', 'Publishing needs the publish token.');
  if (mode.whip === 'none') return problem(res, 404, 'no-such-channel', 'There is no such channel.');
  res.setHeader('Retry-After', '4');
  return problem(res, 503, 'channel-busy', 'Someone else is publishing to this channel since 02:14.');
}

async function live(res, [name, ...rest]) {
  const status = channels().find((each) => each.name === name);
  if (!status || status.state === 'waiting' || status.state === 'starting')
    return problem(res, 404, 'not-live', 'The channel has no playlist yet.');
  hls ??= stream();
  const file = join(hls, normalize('/' + rest.join('/')));
  try {
    const data = await readFile(file);
    res.writeHead(200, { 'Content-Type': types[extname(file)] ?? 'text/plain', 'Cache-Control': 'no-cache' });
    res.end(data);
  } catch {
    problem(res, 404, 'not-found', 'Not there (yet).');
  }
}

async function page(res, path) {
  let file = path;
  if (path === '/') file = '/index.html';
  else if (/^\/watch\/[^/]+$/.test(path)) file = '/watch.html';
  else if (/^\/publish\/[^/]+$/.test(path)) file = '/publish.html';
  file = join(dist, normalize(file));
  if (!(await stat(file).catch(() => null))?.isFile()) return problem(res, 404, 'not-found', 'No such page.');
  res.writeHead(200, {
    'Content-Type': types[extname(file)] ?? 'text/plain',
    'Content-Security-Policy': csp,
  });
  res.end(await readFile(file));
}

const send = (res, status, json) => {
  res.writeHead(status, { 'Content-Type': 'application/json' });
  res.end(JSON.stringify(json));
};
const problem = (res, status, kind, detail) => {
  res.writeHead(status, { 'Content-Type': 'application/problem+json' });
  res.end(JSON.stringify({ type: `/problems/${kind}`, title: kind.replaceAll('-', ' '), status, detail }));
};

// ---- made-up channels

function channels() {
  const base = mode.scenario === 'none' ? [] : mode.scenario === 'one' ? many().slice(0, 1) : many();
  const all = new Map(base.map((each) => [each.name, each]));
  for (const [name, each] of added) each ? all.set(name, each) : all.delete(name);
  return [...all.values()];
}

function many() {
  const warn = (text) => ({ level: 'warning', text });
  const error = (text) => ({ level: 'error', text });
  return [
    channel('demo', { state: 'live', viewers: 3 }),
    channel('Main-Stage', {
      state: 'live',
      sourceKind: 'whip',
      viewers: 1284,
      fps: 59.94,
      height: 1080,
      opus: true,
    }),
    channel('gate-north', {
      state: 'interrupted',
      sourceKind: 'rtsp',
      viewers: 2,
      end: 'timeout',
      messages: [error('No packets from the camera for 48 s; trying again every 10 s.')],
    }),
    channel('conference-room-4-overflow-and-recording-feed-second-floor_b', {
      state: 'live',
      sourceKind: 'rtsp',
      viewers: 12,
      lost: 1823,
      messages: [
        warn(
          'Key frames arrive every 10 s, but segments should be 2 s long: viewers start later and see a higher latency. Set the key-frame interval of the camera to 2 s.',
        ),
        warn('1.2 % of the packets were lost in the last minute.'),
      ],
    }),
    channel('choir', { state: 'waiting', sourceKind: 'whip', sessions: 0 }),
    channel('studio-b', { state: 'starting', sourceKind: 'whip' }),
    channel('harbour-cam', { state: 'live', sourceKind: 'rtsp', viewers: 41, height: 720, fps: 25 }),
    channel('lecture-hall', { state: 'live', sourceKind: 'rtp', viewers: 208, passthrough: true }),
    channel('portrait', { state: 'live', sourceKind: 'whip', viewers: 7, height: 1280, width: 720, fps: 30 }),
    channel('roof', {
      state: 'waiting',
      sourceKind: 'rtsp',
      end: 'source_failed',
      sessions: 4,
      messages: [
        error('The camera refused the user name or password (401 from rtsp://10.20.0.17:554/stream1).'),
      ],
    }),
    channel('night-watch', {
      state: 'live',
      sourceKind: 'rtsp',
      viewers: 0,
      fps: 12.5,
      height: 480,
      silent: true,
    }),
    channel('worship', {
      state: 'live',
      sourceKind: 'whip',
      viewers: 96,
      restarts: 2,
      messages: [
        { level: 'info', text: 'The encoder was restarted 2 times; viewers saw a gap of under 2 s.' },
      ],
    }),
  ];
}

function channel(name, is) {
  const height = is.height ?? 1080;
  const width = is.width ?? Math.round((height * 16) / 9);
  const kind = is.sourceKind ?? 'rtp';
  const wave = (mean) =>
    Math.round(mean * (1 + 0.12 * Math.sin(Date.now() / 9000 + name.length) + 0.08 * Math.random()));
  const up = is.state === 'live' || is.state === 'starting';
  const seconds = Math.round((Date.now() - started) / 1000);
  const video = (w, h, bitrate, codec) => ({
    codec: codec ?? (h > 720 ? 'avc1.640028' : 'avc1.64001f'),
    width: w,
    height: h,
    frame_rate: is.fps ?? 30,
    sample_rate: null,
    channels: null,
    bitrate: up ? wave(bitrate) : 0,
  });
  const audio = (codec, bitrate) => ({
    codec,
    width: null,
    height: null,
    frame_rate: null,
    sample_rate: 48000,
    channels: 2,
    bitrate: up ? wave(bitrate) : 0,
  });
  const rungs = [
    [1080, 5_000_000],
    [720, 2_800_000],
    [480, 1_200_000],
    [360, 700_000],
    [240, 350_000],
  ].filter(([h]) => h < height);
  const rendition = (id, kindOf, track, passthrough) => ({
    id,
    kind: kindOf,
    passthrough,
    ...track,
    msn: 4210 + Math.floor(seconds / 2),
    segments: 12,
    retained_bytes: Math.round((track.bitrate / 8) * 24),
  });
  const has = is.state === 'live' || is.state === 'interrupted';
  return {
    name,
    state: is.state,
    since: new Date(
      started - (is.state === 'live' ? 7_384_000 : 48_000) * (1 + (name.length % 5)),
    ).toISOString(),
    source:
      is.state === 'waiting' && kind !== 'rtsp'
        ? null
        : {
            kind,
            detail:
              kind === 'rtsp'
                ? `rtsp://10.20.0.17:554/Streaming/Channels/101?transportmode=unicast&profile=Profile_1`
                : kind === 'rtp'
                  ? '127.0.0.1:5004, 127.0.0.1:5006'
                  : '/whip/' + name,
            remote: up ? '192.168.17.204:51234' : null,
            video: up ? video(width, height, 6_000_000) : null,
            audio: up && !is.silent ? audio(kind === 'whip' ? 'opus' : 'mp4a.40.2', 128_000) : null,
            packets: 981_234 + seconds * 600,
            lost: is.lost ?? 0,
            repaired: is.lost ? 412 : 0,
            refused: 0,
            engine_dropped: 0,
          },
    ladder: is.passthrough ? 'passthrough' : 'default',
    renditions: !has
      ? []
      : [
          rendition('source', 'video', video(width, height, 6_000_000), true),
          ...(is.passthrough
            ? []
            : rungs.map(([h, b]) =>
                rendition(`${h}p`, 'video', video(Math.round((width * h) / height / 2) * 2, h, b), false),
              )),
          ...(is.silent ? [] : [rendition('aac', 'audio', audio('mp4a.40.2', 128_000), false)]),
          ...(is.opus ? [rendition('opus', 'audio', audio('opus', 96_000), true)] : []),
        ],
    viewers: is.viewers ?? 0,
    playlist: `/live/${name}/index.m3u8`,
    messages: is.messages ?? [],
    end_reason: is.end ?? null,
    sessions: is.sessions ?? 1,
    worker_restarts: is.restarts ?? 0,
  };
}

// ---- one real stream behind all channels

const WIDTH = 640;
const HEIGHT = 360;
const RATE = 15;

function stream() {
  const dir = mkdtempSync(join(tmpdir(), 'fishladder-mock-'));
  const args =
    `-hide_banner -loglevel error -f rawvideo -pix_fmt gray -s ${WIDTH}x${HEIGHT} -r ${RATE} -i pipe:0 ` +
    `-f lavfi -re -i sine=f=440:r=48000 -map 0:v -map 0:v -map 1:a -c:v libx264 -preset ultrafast -tune zerolatency ` +
    `-pix_fmt yuv420p -g ${RATE} -b:v:0 900k -b:v:1 300k -filter:v:1 scale=320:180 -c:a aac -b:a 64k -f hls -hls_time 1 ` +
    `-hls_list_size 8 -hls_flags delete_segments+program_date_time+independent_segments -hls_segment_type fmp4 -master_pl_name index.m3u8`;
  const ffmpeg = spawn(
    'ffmpeg',
    [
      ...args.split(' '),
      '-var_stream_map',
      'v:0,agroup:aac,name:high v:1,agroup:aac,name:low a:0,agroup:aac,name:sound,language:en',
      '-hls_fmp4_init_filename',
      'init.mp4',
      join(dir, '%v', 'index.m3u8'),
    ],
    { stdio: ['pipe', 'inherit', 'inherit'] },
  );
  const frames = setInterval(() => {
    if (ffmpeg.stdin.writableLength < 4 * WIDTH * HEIGHT) ffmpeg.stdin.write(frame(Date.now()));
  }, 1000 / RATE);
  ffmpeg.stdin.on('error', () => clearInterval(frames));
  process.on('exit', () => {
    ffmpeg.kill('SIGKILL');
    rmSync(dir, { recursive: true, force: true });
  });
  for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(0));
  return dir;
}

/** Hills that drift, under the bar code of src/barcode.ts. */
function frame(now) {
  const picture = Buffer.alloc(WIDTH * HEIGHT);
  const ridge = [0, 1, 2].map((k) =>
    Float32Array.from({ length: WIDTH }, (_, x) => {
      const t = x / (150 - 30 * k) + now / (9000 - 2500 * k) + k * 2;
      return HEIGHT * (0.45 + 0.16 * k) + 26 * Math.sin(t) + 11 * Math.sin(2.3 * t);
    }),
  );
  for (let y = 0; y < HEIGHT; y++)
    for (let x = 0; x < WIDTH; x++)
      picture[y * WIDTH + x] =
        y > ridge[2][x] ? 44 : y > ridge[1][x] ? 84 : y > ridge[0][x] ? 128 : 210 - Math.round(y / 4);
  const side = Math.floor(WIDTH / 40 / 2) * 2;
  const value = now % 2 ** 28;
  let check = 0;
  for (let shift = 0; shift < 28; shift += 4) check ^= (value >>> shift) & 15;
  const bits = `10${value.toString(2).padStart(28, '0')}${check.toString(2).padStart(4, '0')}`;
  for (let y = 0; y < side * 2; y++) picture.fill(16, y * WIDTH, y * WIDTH + side * 35);
  for (let y = side / 2; y < side * 1.5; y++)
    [...bits].forEach((bit, i) => {
      if (bit === '1') picture.fill(235, y * WIDTH + side * (i + 0.5), y * WIDTH + side * (i + 1.5));
    });
  return picture;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const port = Number(process.argv[2] ?? 8089);
  await start(port);
  console.log(`mock on http://127.0.0.1:${port}/`);
}
