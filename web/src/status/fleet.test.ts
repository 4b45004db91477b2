import { describe, expect, it } from 'vitest';
import { parseFleet, type Device } from '../api';
import {
  COLORS,
  assignColors,
  bars,
  deviceSentence,
  drainQuestion,
  fleetFacts,
  kindWords,
  loadFacts,
  movesSentence,
  pack,
  percent,
  restoreQuestion,
  rungWords,
  sessionSlots,
  type Segment,
} from './fleet';

function device(rest: Record<string, unknown> = {}): Device {
  const [parsed] = parseFleet({ devices: [{ id: 'sim0', state: 'ready', ...rest }] }).devices;
  if (!parsed) throw new Error('not a device');
  return parsed;
}

const on = (channel: string, amount: number): Segment => ({ channel, amount, moving: false });
const shape = (packed: Segment[][]) =>
  packed.map((engine) => engine.map(({ channel, amount }) => `${channel} ${amount.toFixed(2)}`));

describe('segments', () => {
  it('finds the engine in which each ladder lies from the sums of both', () => {
    const packed = pack([0.5, 0.3], [on('b', 0.3), on('a', 0.4), on('c', 0.1)]);
    expect(shape(packed)).toEqual([['a 0.40', 'c 0.10'], ['b 0.30']]);
  });

  it('cuts a ladder whose rungs lie on two engines, and only that', () => {
    expect(shape(pack([0.4, 0.4], [on('wide', 0.6), on('a', 0.2)]))).toEqual([
      ['wide 0.40'],
      ['wide 0.20', 'a 0.20'],
    ]);
  });

  it('shows what is promised to no listed ladder, and nothing beyond the sums', () => {
    expect(pack([0.5], [on('a', 0.2)])[0]?.[1]).toMatchObject({ channel: null });
    expect(shape(pack([0.3], [on('a', 0.3), on('late', 0.2)]))).toEqual([['a 0.30']]);
    expect(pack([], [on('a', 0.3)])).toEqual([]);
  });

  it('does not mistake rounding for a ladder', () => {
    // The sums come rounded to thousandths by the server.
    expect(shape(pack([0.333], [on('a', 0.1666), on('b', 0.1667)]))).toEqual([['b 0.17', 'a 0.17']]);
    expect(shape(pack([700], [on('a', 350), on('b', 350)]))).toEqual([['a 350.00', 'b 350.00']]);
  });

  it('fills every engine to its sum whatever the ladders are', () => {
    let seed = 7;
    const random = () => (seed = (seed * 16807) % 2147483647) / 2147483647;
    for (let round = 0; round < 200; round++) {
      const engines = Array.from({ length: 1 + Math.floor(random() * 4) }, () => random());
      const all = Array.from({ length: Math.floor(random() * 12) }, (_, n) => on(`c${n}`, random() / 3));
      const packed = pack(engines, all);
      packed.forEach((segments, engine) => {
        const sum = segments.reduce((total, segment) => total + segment.amount, 0);
        expect(Math.abs(sum - (engines[engine] ?? 0))).toBeLessThanOrEqual(0.002 * (1 + all.length));
        for (const segment of segments) expect(segment.amount).toBeGreaterThan(0);
      });
      for (const ladder of all) {
        const drawn = packed.flat().filter((segment) => segment.channel === ladder.channel);
        const sum = drawn.reduce((total, segment) => total + segment.amount, 0);
        expect(sum).toBeLessThanOrEqual(ladder.amount + 1e-9);
      }
    }
  });
});

describe('bars', () => {
  const busy = device({
    encode: [0.95, 0.1],
    encode_limit: 0.9,
    decode: [0.1],
    decode_limit: 0.9,
    vram_mib: 700,
    vram_limit_mib: 12000,
    ladders: [
      { channel: 'cam1', rungs: ['v720'], encode: 0.95, decode: 0.1, vram_mib: 700, moving: true },
      { channel: 'cam2', rungs: ['v720'], encode: 0.1, decode: 0, vram_mib: 0 },
    ],
  });

  it('has one for each engine and the memory, and says when a limit is passed', () => {
    const drawn = bars(busy);
    expect(drawn.map((bar) => [bar.label, bar.value, bar.over])).toEqual([
      ['Encode 1', '95 %', true],
      ['Encode 2', '10 %', false],
      ['Decode', '10 %', false],
      ['VRAM', '0.7 of 11.7 GiB', false],
    ]);
    expect(drawn[0]?.sentence).toBe(
      'Encode 1: 95 % reserved, limit 90 %, over its limit: cam1 95 % (moving)',
    );
    expect(drawn[3]?.whole).toBe(12000);
  });

  it('grows where more is promised than there is, and leaves out what the device has not', () => {
    expect(bars(device({ encode: [1.4] }))[0]?.whole).toBe(1.4);
    expect(bars(device())).toEqual([]);
  });
});

describe('sentences', () => {
  it('counts session slots as long as anyone would', () => {
    expect(sessionSlots(device({ encoding_sessions: 3, encoding_sessions_left: 5 }))).toEqual({
      used: 3,
      free: 5,
      text: '3 in use, 5 left',
    });
    expect(sessionSlots(device({ encoding_sessions: 8, encoding_sessions_left: 0 })).text).toBe(
      '8 in use, none left',
    );
    expect(sessionSlots(device({ encoding_sessions: 3 }))).toEqual({
      used: 0,
      free: 0,
      text: '3 in use, no cap',
    });
    expect(sessionSlots(device({ encoding_sessions: 3, encoding_sessions_left: 1e9 }))).toMatchObject({
      used: 0,
      free: 0,
    });
  });

  it('says why a device is not in use', () => {
    expect(deviceSentence(device())).toBe('');
    expect(deviceSentence(device({ state: 'quarantined', reason: 'its worker died (signal: 9)' }))).toBe(
      'Its worker died (signal: 9). It takes no ladder until it is restored.',
    );
    expect(deviceSentence(device({ state: 'draining' }))).toContain('can be taken out');
    expect(deviceSentence(device({ state: 'draining', ladders: [{ channel: 'a' }] }))).toContain(
      '1 ladder still here',
    );
  });

  it('tells before draining what will happen', () => {
    const loaded = device({ ladders: [{ channel: 'a' }, { channel: 'b' }] });
    const other = device({ id: 'sim1' });
    expect(drainQuestion(loaded, [loaded, other])).toContain('Its 2 ladders move to other devices');
    expect(drainQuestion(loaded, [loaded, { ...other, state: 'draining' }])).toContain(
      'No other device is ready',
    );
    expect(drainQuestion(device(), [loaded])).toContain('It carries no ladder.');
    expect(restoreQuestion(device({ state: 'quarantined', reason: 'XID 79' }))).toContain('XID 79.');
    expect(restoreQuestion(device({ state: 'draining' }))).toBe('It takes ladders again at once.');
  });

  it('tells afterwards what came of it', () => {
    expect(movesSentence('sim0', 'drain', { moving: 3, stranded: ['cam4: encode full'] })).toBe(
      '3 ladders are moving to other devices. 1 ladder fits nowhere else and stays: cam4: encode full.',
    );
    expect(movesSentence('sim0', 'drain', { moving: 0, stranded: [] })).toBe(
      'sim0 is empty and takes no new ladder.',
    );
    expect(movesSentence('sim0', 'drain', { moving: 0, stranded: ['a: x', 'b: y'] })).toBe(
      '2 ladders fit nowhere else and stay: a: x; b: y.',
    );
    expect(movesSentence('sim0', 'restore', { moving: 1, stranded: [] })).toBe(
      'sim0 takes ladders again. 1 ladder is moving.',
    );
  });

  it('sums up the devices, counting engines only where ladders may go', () => {
    const { devices } = parseFleet({
      devices: [
        { id: 'a', state: 'ready', encode: [0.5, 0.1], ladders: [{ channel: 'x' }] },
        { id: 'b', state: 'draining', encode: [0.9] },
        { id: 'c', state: 'broken' },
      ],
    });
    expect(fleetFacts({ policy: '', devices, decisions: [] }).map((fact) => fact.text)).toEqual([
      '1 of 3 ready',
      '1 draining',
      '1 quarantined',
      '1 ladder',
      'encoders 30 % reserved',
    ]);
  });

  it('tells what is measured and nothing that is not', () => {
    expect(loadFacts(device())).toEqual([]);
    expect(
      loadFacts(
        device({ measured: { encode: 0.4, vram_mib: 900, temperature_c: 61.4 }, worker_restarts: 2 }),
      ),
    ).toEqual(['Measured: encode 40 %', 'VRAM 900 MiB', '61 °C', 'worker restarted 2 ×']);
    expect(loadFacts(device({ measured: { cpu: 0.42, speed: 0.5, throttle: ['simulated'] } }))).toEqual([
      'Measured: 0.4 CPU cores',
      'throttled to 50 % (simulated)',
    ]);
  });

  it('tells which rungs a ladder is without', () => {
    expect(rungWords({ rungs: ['v720', 'v360'], suspended: [] })).toBe('v720, v360');
    expect(rungWords({ rungs: ['v720', 'v360'], suspended: ['v720'] })).toBe('v360 (not now: v720)');
  });

  it('writes kinds and shares as people do', () => {
    expect([kindWords('simulated'), kindWords('l4'), kindWords('rtx-pro-6000')]).toEqual([
      'Simulated',
      'L4',
      'RTX PRO 6000',
    ]);
    expect([percent(0), percent(0.004), percent(0.424), percent(1.1)]).toEqual([
      '0 %',
      '< 1 %',
      '42 %',
      '110 %',
    ]);
  });
});

describe('colours', () => {
  const names = (count: number) => Array.from({ length: count }, (_, n) => `cam${n}`);
  const none = new Map<string, number>();

  it('differ as long as there are enough, and come from the name alone where they can', () => {
    expect(new Set(assignColors(none, names(COLORS)).values()).size).toBe(COLORS);
    expect(assignColors(none, names(30).reverse())).toEqual(assignColors(none, names(30)));
    for (const color of assignColors(none, names(100)).values()) {
      expect(color).toBeGreaterThanOrEqual(0);
      expect(color).toBeLessThan(COLORS);
    }
  });

  it('stay with who has one, and are forgotten with who is gone', () => {
    const before = assignColors(none, names(6));
    const after = assignColors(before, [...names(6).slice(1), 'a-newcomer', 'another']);
    for (const name of names(6).slice(1)) expect(after.get(name)).toBe(before.get(name));
    expect(after.has('cam0')).toBe(false);
    expect(new Set(after.values()).size).toBe(after.size);
  });
});
