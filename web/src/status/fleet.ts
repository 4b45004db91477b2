// What the status page shows of the devices, decided without a document: where segments lie, colours, sentences.

import type { Device, DeviceState, Fleet, Moves, Reservation } from '../api';
import { formatMebibytes, formatMemoryOf, formatPercent } from '../ui/format';

/** Less than this share of an engine is rounding, not a ladder. */
const ROUNDING = 0.002;
/** More session slots than this are told in words: nobody counts them. */
const MOST_SLOTS = 12;

/** A stretch of a bar, in the bar's own unit. `channel` null: reserved, but by no ladder that is listed. */
export interface Segment {
  channel: string | null;
  amount: number;
  moving: boolean;
}

export interface Bar {
  label: string;
  segments: (Segment & { title: string })[];
  used: number;
  limit: number;
  /** What the whole length stands for. */
  whole: number;
  /** Beside the bar. */
  value: string;
  /** For who does not see the bar. */
  sentence: string;
  over: boolean;
}

/** The bars of a device: its encoders, its decoders, its memory. */
export function bars(device: Device): Bar[] {
  const engines = (what: string, used: readonly number[], limit: number, share: (r: Reservation) => number) =>
    pack(
      used,
      device.ladders.map((ladder) => ({
        channel: ladder.channel,
        amount: share(ladder),
        moving: ladder.moving,
      })),
    ).map((segments, at) =>
      bar(used.length > 1 ? `${what} ${at + 1}` : what, segments, used[at] ?? 0, limit, 1, percent),
    );
  const memory = pack(
    [device.vramMib],
    device.ladders.map(({ channel, vramMib, moving }) => ({ channel, amount: vramMib, moving })),
  ).map((segments) => bar('VRAM', segments, device.vramMib, device.vramLimitMib, 0, formatMebibytes));
  return [
    ...engines('Encode', device.encode, device.encodeLimit, (ladder) => ladder.encode),
    ...engines('Decode', device.decode, device.decodeLimit, (ladder) => ladder.decode ?? 0),
    ...(device.vramLimitMib > 0 ? memory : []),
  ];
}

/**
 * Lays reservations into what each engine has promised. The server tells a ladder's share of all engines together and
 * an engine's share of all ladders together, so which lies in which is found here: the largest first, each where it
 * leaves the least room, cut in two only where none has room for the whole. What is promised to no listed ladder is a
 * segment without a channel; what ladders claim beyond the engines' own sums is left out, as the sums decide admission.
 */
export function pack(promised: readonly number[], reservations: readonly Segment[]): Segment[][] {
  const room = promised.map((amount) => Math.max(0, amount));
  const rounding = ROUNDING * Math.max(1, ...room);
  const packed: Segment[][] = room.map(() => []);
  const put = (engine: number, segment: Segment, amount: number) => {
    if (amount <= 0) return;
    packed[engine]?.push({ ...segment, amount });
    room[engine] = (room[engine] ?? 0) - amount;
  };
  const sorted = reservations
    .filter((segment) => segment.amount > 0)
    .sort((a, b) => b.amount - a.amount || (a.channel ?? '').localeCompare(b.channel ?? '', 'en'));
  for (const segment of sorted) {
    let tightest = -1;
    room.forEach((left, engine) => {
      if (left + rounding >= segment.amount && left < (room[tightest] ?? Infinity)) tightest = engine;
    });
    if (tightest >= 0) {
      put(tightest, segment, Math.min(segment.amount, room[tightest] ?? 0));
      continue;
    }
    let rest = segment.amount;
    const emptiest = room.map((_left, engine) => engine).sort((a, b) => (room[b] ?? 0) - (room[a] ?? 0));
    for (const engine of emptiest) {
      const piece = Math.min(rest, room[engine] ?? 0);
      if (piece <= rounding) break;
      put(engine, segment, piece);
      rest -= piece;
    }
  }
  room.forEach((left, engine) => {
    if (left > rounding) packed[engine]?.push({ channel: null, amount: left, moving: false });
  });
  return packed;
}

function bar(
  label: string,
  segments: readonly Segment[],
  used: number,
  limit: number,
  least: number,
  format: (amount: number) => string,
): Bar {
  const over = used > limit * (1 + ROUNDING);
  const titled = segments.map((segment) => ({
    ...segment,
    title: `${segment.channel ?? 'unattributed'} ${format(segment.amount)}${segment.moving ? ' (moving)' : ''}`,
  }));
  const sentence =
    `${label}: ${format(used)} reserved, limit ${format(limit)}` +
    (over ? ', over its limit' : '') +
    (titled.length > 0 ? `: ${titled.map((segment) => segment.title).join(', ')}` : '');
  return {
    label,
    segments: titled,
    used,
    limit,
    whole: Math.max(least, limit, used),
    value: least > 0 ? format(used) : formatMemoryOf(used, limit),
    sentence,
    over,
  };
}

/** Percent without decimals that jump about: `42 %`, `< 1 %`. */
export function percent(share: number): string {
  return share > 0 && share < 0.01 ? '< 1 %' : `${Math.round(100 * share)} %`;
}

/** Encoding sessions: how many slots to draw (none where there is no cap, or too many to count) and the words. */
export function sessionSlots(device: Device): { used: number; free: number; text: string } {
  const used = device.encodingSessions;
  const left = device.encodingSessionsLeft;
  if (left === null) return { used: 0, free: 0, text: `${used} in use, no cap` };
  const text = `${used} in use, ${left === 0 ? 'none' : left} left`;
  return used + left <= MOST_SLOTS ? { used, free: left, text } : { used: 0, free: 0, text };
}

export const DEVICE_STATE_WORDS: Record<DeviceState, string> = {
  ready: 'Ready',
  draining: 'Draining',
  quarantined: 'Quarantined',
};

/** `Simulated`, `L4`, `RTX PRO 6000`. */
export function kindWords(kind: string): string {
  return kind === 'simulated' ? 'Simulated' : kind.replace(/[-_]+/g, ' ').toUpperCase();
}

/** What is unlike what one hopes for, or the reason it stands as it does; empty where there is nothing to say. */
export function deviceSentence(device: Device): string {
  const carried = device.ladders.length;
  const why = device.reason ? `${sentence(device.reason)} ` : '';
  switch (device.state) {
    case 'ready':
      return why.trim();
    case 'draining':
      return carried === 0
        ? `${why}Empty: it can be taken out. It takes no ladder until it is restored.`
        : `${why}${ladders(carried)} still here. It takes no new one until it is restored.`;
    case 'quarantined':
      return `${why || 'It failed. '}It takes no ladder until it is restored.`;
  }
}

/** How busy it is, as measured, and how its worker does. */
export function loadFacts(device: Device): string[] {
  const { measured, workerRestarts } = device;
  const facts: string[] = [];
  if (measured) {
    if (measured.encode !== null) facts.push(`encode ${percent(measured.encode)}`);
    if (measured.decode !== null) facts.push(`decode ${percent(measured.decode)}`);
    if (measured.vramMib !== null) facts.push(`VRAM ${formatMebibytes(measured.vramMib)}`);
    if (measured.temperatureC !== null) facts.push(`${Math.round(measured.temperatureC)} °C`);
    if (measured.cpu !== null) facts.push(`${measured.cpu.toFixed(1)} CPU cores`);
    if (measured.throttle.length > 0)
      facts.push(`throttled to ${percent(measured.speed)} (${measured.throttle.join(', ')})`);
    if (facts.length > 0) facts[0] = `Measured: ${facts[0] ?? ''}`;
  }
  if (workerRestarts > 0) facts.push(`worker restarted ${workerRestarts} ×`);
  return facts;
}

/** `v720, v360`, and what is not encoded for now. */
export function rungWords({ rungs, suspended }: Pick<Reservation, 'rungs' | 'suspended'>): string {
  const running = rungs.filter((rung) => !suspended.includes(rung)).join(', ');
  return suspended.length === 0 ? running : `${running} (not now: ${suspended.join(', ')})`;
}

/** The line that stands for all devices while they are folded away. */
export function fleetFacts(fleet: Fleet): { text: string; state: DeviceState }[] {
  const { devices } = fleet;
  const count = (state: DeviceState) => devices.filter((device) => device.state === state).length;
  const carried = devices.reduce((sum, device) => sum + device.ladders.length, 0);
  const engines = devices.filter((device) => device.state === 'ready').flatMap((device) => device.encode);
  const promised = engines.reduce((sum, share) => sum + share, 0);
  const facts: { text: string; state: DeviceState }[] = [];
  const say = (text: string, state: DeviceState = 'ready') => facts.push({ text, state });
  say(`${count('ready')} of ${devices.length} ready`);
  if (count('draining') > 0) say(`${count('draining')} draining`, 'draining');
  if (count('quarantined') > 0) say(`${count('quarantined')} quarantined`, 'quarantined');
  say(ladders(carried));
  if (engines.length > 0) say(`encoders ${formatPercent(promised, engines.length)} reserved`);
  return facts;
}

/** What a policy means; one that this page does not know is named as it is. */
export function policySentence(policy: string): string {
  if (policy === 'consolidate') return 'Policy consolidate: fills one device before it takes the next.';
  if (policy === 'spread') return 'Policy spread: shares the ladders out over all devices.';
  return policy === '' ? '' : `Policy ${policy}.`;
}

/** What draining will do, asked before it is done. */
export function drainQuestion(device: Device, devices: readonly Device[]): string {
  const carried = device.ladders.length;
  const others = devices.some((other) => other.id !== device.id && other.state === 'ready');
  const closed = 'The device takes no new ladder until it is restored.';
  if (carried === 0) return `It carries no ladder. ${closed}`;
  if (!others)
    return `No other device is ready, so its ${ladders(carried)} will stay here until one is. ${closed}`;
  return `Its ${ladders(carried)} ${carried === 1 ? 'moves' : 'move'} to other devices where there is room, without a gap for viewers. ${closed}`;
}

export function restoreQuestion(device: Device): string {
  const again = 'It takes ladders again at once.';
  if (device.state !== 'quarantined') return again;
  return `It was quarantined: ${sentence(device.reason ?? 'it failed')} ${again} If the fault is not mended, they are interrupted again.`;
}

/** What came of it. */
export function movesSentence(name: string, how: 'drain' | 'restore', moves: Moves): string {
  const moving =
    moves.moving > 0 ? `${ladders(moves.moving)} ${moves.moving === 1 ? 'is' : 'are'} moving` : '';
  const stranded = moves.stranded.length;
  const stuck =
    stranded > 0
      ? ` ${ladders(stranded)} ${stranded === 1 ? 'fits' : 'fit'} nowhere else and ${stranded === 1 ? 'stays' : 'stay'}: ${moves.stranded.join('; ')}.`
      : '';
  if (how === 'restore') return `${name} takes ladders again.${moving ? ` ${moving}.` : ''}${stuck}`;
  if (moving) return `${moving} to other devices.${stuck}`;
  return stuck ? stuck.trim() : `${name} is empty and takes no new ladder.`;
}

/** Twelve hues in two shades: more than anyone tells apart, so names stand beside them. */
export const COLORS = 24;

/**
 * A colour for each channel. It follows from the name alone, so that it is the same in every browser, except where two
 * names would share one: the later takes the next free. Who has one keeps it.
 */
export function assignColors(
  previous: ReadonlyMap<string, number>,
  names: Iterable<string>,
): Map<string, number> {
  const colors = new Map<string, number>();
  const fresh: string[] = [];
  for (const name of new Set(names)) {
    const kept = previous.get(name);
    if (kept === undefined) fresh.push(name);
    else colors.set(name, kept);
  }
  const taken = new Set(colors.values());
  for (const name of fresh.sort()) {
    let color = hash(name) % COLORS;
    // Five on is another hue by far, and comes by every colour before it comes back.
    if (taken.size < COLORS) while (taken.has(color)) color = (color + 5) % COLORS;
    taken.add(color);
    colors.set(name, color);
  }
  return colors;
}

/** FNV-1a, with the high bits mixed in: names that differ in their last digit alone must land apart. */
function hash(text: string): number {
  let hash = 0x811c9dc5;
  for (const char of text) hash = Math.imul(hash ^ (char.codePointAt(0) ?? 0), 0x01000193) >>> 0;
  hash = Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d) >>> 0;
  return (hash ^ (hash >>> 13)) >>> 0;
}

function ladders(n: number): string {
  return n === 1 ? '1 ladder' : `${n} ladders`;
}

/** With a capital and a full stop. */
function sentence(text: string): string {
  const trimmed = text.trim();
  const capital = trimmed.charAt(0).toUpperCase() + trimmed.slice(1);
  return /[.!?]$/.test(capital) ? capital : `${capital}.`;
}
