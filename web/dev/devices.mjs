// Made-up devices for the mock: `GET /api/v1/devices` in the server's own shape, with drain and restore that answer.

const NAMES = ['demo', 'Main-Stage', 'harbour-cam', 'lecture-hall', 'portrait', 'night-watch', 'worship'];
const LONG = 'conference-room-4-overflow-and-recording-feed-second-floor_b';
const started = Date.now();

/** What an operator did to a device, by id. */
const changed = new Map();

/** `count`: 0, 1, 4 or 12 devices. */
export function devices(count) {
  const list = [
    // Draining into the others, busy, measured.
    device('sim0', { kind: 'simulated', loads: NAMES.slice(0, 3), engines: 2 }),
    device('sim1', {
      kind: 'simulated',
      state: 'draining',
      loads: [LONG, 'choir'],
      engines: 1,
      moving: true,
    }),
    device('sim2', {
      kind: 'simulated',
      state: 'quarantined',
      reason: 'its worker died (signal: 9)',
      engines: 1,
      restarts: 3,
      pid: null,
    }),
    device('sim3', { kind: 'simulated', engines: 2 }),
    // Full: every session slot taken, one engine over its limit, hot.
    device('GPU-4b1d', {
      name: 'GPU 0',
      kind: 'rtx-4090',
      loads: Array.from({ length: 8 }, (_, n) => `cam${n + 1}`),
      share: 0.272,
      engines: 2,
      left: 0,
      measured: {
        encode: 0.93,
        decode: 0.41,
        vram_mib: 4711,
        temperature_c: 86,
        throttle: ['thermal'],
        speed: 0.71,
      },
    }),
    device('GPU-77aa', {
      name: 'GPU 1',
      kind: 'l4',
      loads: Array.from({ length: 23 }, (_, n) => `gate-${n + 1}`),
      share: 0.07,
      engines: 2,
      decoders: 4,
      measured: { encode: 0.78, decode: 0.2, vram_mib: 9120, temperature_c: 61, throttle: [], speed: 1 },
    }),
    // No encoder, seven decoders.
    device('GPU-h200', {
      name: 'GPU 2',
      kind: 'h200',
      loads: ['archive-1', 'archive-2'],
      engines: 0,
      decoders: 7,
      vram: 144_000,
      measured: { encode: null, decode: 0.02, vram_mib: 1190, temperature_c: 38, throttle: [], speed: 1 },
    }),
    device('GPU-rtx6000', {
      name: 'GPU 3',
      kind: 'rtx-pro-6000',
      loads: ['studio-a'],
      engines: 4,
      decoders: 4,
    }),
    device('GPU-t4', { name: 'GPU 4', kind: 't4', loads: ['foyer', 'bar'], engines: 1, share: 0.4 }),
    device('GPU-l40s', {
      name: 'a-device-with-a-name-that-nobody-would-give-but-someone-did',
      kind: 'l40s',
      loads: ['roof', 'studio-b'],
      engines: 3,
      decoders: 3,
    }),
    device('GPU-a10', { name: 'GPU 6', kind: 'a10g', engines: 1, decoders: 2, left: 3 }),
    device('GPU-orin', { name: 'Orin', kind: 'orin', loads: ['<img src=x onerror=alert(1)>'], engines: 1 }),
  ];
  const shown = count === 1 ? list.slice(0, 1) : list.slice(0, count);
  return { policy: 'consolidate', devices: shown, decisions: count > 0 ? decisions() : [] };
}

/** The answer to a drain or a restore, or null where there is no such device. */
export function change(id, how, count) {
  const found = devices(count).devices.find((each) => each.id === id);
  if (!found) return null;
  changed.set(id, how === 'drain' ? 'draining' : 'ready');
  const held = found.ladders.length;
  if (how === 'restore' || held === 0) return { moving: 0, stranded: [] };
  return { moving: held - 1, stranded: [`${found.ladders[0].channel}: encode full`] };
}

function device(id, is) {
  const share = is.share ?? 0.2;
  const loads = is.loads ?? [];
  const state = changed.get(id) ?? is.state ?? 'ready';
  const moving = state === 'draining';
  const ladders = loads.map((channel, n) => ({
    channel,
    rungs: ['v720', 'v480', 'v360'].slice(0, 1 + (n % 3)),
    encode: is.engines === 0 ? 0 : share * (1 - 0.15 * (n % 3)),
    decode: 0.05 + 0.01 * (n % 2),
    vram_mib: 220 + 60 * (n % 3),
    moving,
  }));
  const encode = fill(
    is.engines ?? 1,
    ladders.map((ladder) => ladder.encode),
  );
  const decode = fill(
    is.decoders ?? 1,
    ladders.map((ladder) => ladder.decode),
  );
  const sessions = is.engines === 0 ? 0 : ladders.reduce((sum, ladder) => sum + ladder.rungs.length, 0);
  return {
    id,
    name: is.name ?? id,
    kind: is.kind,
    state,
    reason: state === 'quarantined' ? (is.reason ?? null) : null,
    worker_pid: is.pid === undefined ? 4242 : is.pid,
    worker_restarts: is.restarts ?? 0,
    encode,
    encode_limit: 0.9,
    decode,
    decode_limit: 0.9,
    vram_mib: ladders.reduce((sum, ladder) => sum + ladder.vram_mib, 0),
    vram_limit_mib: is.vram ?? 12_000,
    encoding_sessions: sessions,
    encoding_sessions_left: is.left ?? null,
    measured: is.measured ?? null,
    ladders,
  };
}

/** Each to the emptiest engine. */
function fill(engines, shares) {
  const used = new Array(engines).fill(0);
  for (const share of shares) {
    const emptiest = used.indexOf(Math.min(...used));
    if (emptiest >= 0) used[emptiest] += share;
  }
  return used.map((share) => Math.round(share * 1000) / 1000);
}

function decisions() {
  const texts = [
    ['error', 'sim2 is quarantined: its worker died (signal: 9)'],
    ['info', 'harbour-cam moves from sim2 to sim0: its device was lost'],
    [
      'warning',
      `${LONG} refused: 2 devices lack encode, 1 device lacks sessions, 1 is quarantined; come back in 10 s`,
    ],
    ['info', 'choir placed on sim1: no device in use fits'],
    ['info', 'cam1 placed on GPU 0: the fullest that fits'],
    ['warning', 'cam8 on GPU 0 sheds v360: encode over budget'],
    ['info', 'sim1 is drained'],
  ];
  return Array.from({ length: 43 }, (_, n) => {
    const [level, text] = texts[n % texts.length];
    return { at: new Date(started - 1000 * (7 + 61 * n * n)).toISOString(), level, text };
  });
}
