// The server's JSON, read defensively: a field that is missing or of another type becomes its neutral value, so that
// a page from one version still shows what it can of a server of another.

import { requestToken, forgetToken, storedToken, type TokenKind } from './ui/token';

export type ChannelState = 'waiting' | 'starting' | 'live' | 'interrupted';
export type Level = 'info' | 'warning' | 'error';

export interface Track {
  codec: string;
  width: number | null;
  height: number | null;
  frameRate: number | null;
  sampleRate: number | null;
  channels: number | null;
  bitrate: number;
}

export interface Source {
  kind: string;
  detail: string;
  remote: string | null;
  video: Track | null;
  audio: Track | null;
  packets: number;
  lost: number;
  repaired: number;
  refused: number;
  engineDropped: number;
}

export interface Rendition extends Track {
  id: string;
  kind: 'video' | 'audio';
  passthrough: boolean;
  /** Not encoded at present. */
  suspended: boolean;
  msn: number;
  segments: number;
  retainedBytes: number;
}

export interface Channel {
  name: string;
  state: ChannelState;
  /** Unix ms, or NaN. */
  since: number;
  source: Source | null;
  ladder: string;
  renditions: Rendition[];
  viewers: number;
  playlist: string;
  messages: { level: Level; text: string }[];
  endReason: string | null;
  sessions: number;
  workerRestarts: number;
  /** Of the slowest rung; null where nothing is encoded. */
  encodeLagMs: number | null;
}

export type DeviceState = 'ready' | 'draining' | 'quarantined';

/** What one session's ladder holds of a device. Shares are of one engine, 0 to 1. */
export interface Reservation {
  channel: string;
  rungs: string[];
  /** Those of them that are not encoded for now: the device had promised more than it had. */
  suspended: string[];
  encode: number;
  /** Null: the server does not tell. */
  decode: number | null;
  vramMib: number;
  /** On its way to another device: it holds its place on both until the move is done. */
  moving: boolean;
}

export interface Device {
  id: string;
  name: string;
  kind: string;
  state: DeviceState;
  reason: string | null;
  workerPid: number | null;
  workerRestarts: number;
  /** The reserved share of each engine, 0 to 1 and beyond where a device turned out slower than thought. */
  encode: number[];
  encodeLimit: number;
  decode: number[];
  decodeLimit: number;
  vramMib: number;
  vramLimitMib: number;
  encodingSessions: number;
  /** Null: the device has no limit of its own. */
  encodingSessionsLeft: number | null;
  measured: Load | null;
  ladders: Reservation[];
}

/** How busy a device is, as measured; null for what it does not tell. Shares are 0 to 1. */
export interface Load {
  encode: number | null;
  decode: number | null;
  vramMib: number | null;
  temperatureC: number | null;
  /** Why its clock is lowered; empty: it is not. */
  throttle: string[];
  /** Of its nominal clock while it throttles, else 1. */
  speed: number;
  /** Cores that a simulated device's worker takes. */
  cpu: number | null;
}

export interface Decision {
  /** Unix ms, or NaN. */
  at: number;
  level: Level;
  text: string;
}

export interface Fleet {
  policy: string;
  devices: Device[];
  /** Newest first. */
  decisions: Decision[];
}

/** What draining or restoring a device set in motion. */
export interface Moves {
  moving: number;
  /** Sessions that fit nowhere else, each with its reason. */
  stranded: string[];
}

/** More than this a page cannot show to anyone's use, whatever a server sends. */
const MOST_DEVICES = 256;
const MOST_ENGINES = 16;
const MOST_LADDERS = 500;
const MOST_DECISIONS = 100;

export type SourceRequest =
  { rtp: { sdp: string } } | { rtsp: { url: string } } | { whip: Record<string, never> };

/** What the server answered when it said no, in its own words where it had some (RFC 9457). */
export class Problem extends Error {
  override name = 'Problem';
  constructor(
    readonly status: number,
    message: string,
    readonly retryAfter: number | null,
  ) {
    super(message);
  }
}

const NAME = /^[A-Za-z0-9_-]{1,64}$/;

export function isChannelName(name: string): boolean {
  return NAME.test(name);
}

/** The channel in `/watch/{channel}` or `/publish/{channel}`, or null where the path names none. */
export function channelOfPath(pathname: string): string | null {
  const last = pathname.split('/')[2] ?? '';
  return isChannelName(last) ? last : null;
}

export function playlistPath(channel: string): string {
  return `/live/${channel}/index.m3u8`;
}

/** How long a path that a page signs stays good. */
const SIGNED_HOURS = 12;

/**
 * The playlist that this page may read: everyone's, the one whose token came behind `#` in the page's address, or where
 * the server wants a token and the page has none, one signed now for the operator. Throws a Problem where none may be.
 */
export async function watchablePath(channel: string, fragment: string): Promise<string> {
  const given = /^#(~[A-Za-z0-9_-]{60})$/.exec(fragment)?.[1];
  const folder = given ? `/live/${given}/${channel}` : `/live/${channel}`;
  const access = await fetch(`${folder}/access`, { cache: 'no-store' }).catch(() => null);
  // A server that cannot be reached, or does not know the question: the player waits and tries again.
  if (access?.status !== 403) return `${folder}/index.m3u8`;
  if (given) throw await readProblem(access);
  return signedPath(channel, true);
}

/** The playlist as an operator may read it; `ask`: for the admin token, if need be. */
export async function signedPath(channel: string, ask: boolean): Promise<string> {
  const url = `/api/v1/channels/${encodeURIComponent(channel)}/sign`;
  const body = JSON.stringify({ expires: `${SIGNED_HOURS}h` });
  const init = { method: 'POST', headers: { 'Content-Type': 'application/json' }, body };
  const json: unknown = await (await authorized('admin', url, init, ask)).json();
  const path = isObject(json) ? asText(json['playlist']) : '';
  // Only a path of this server.
  return path.startsWith('/live/') ? path : playlistPath(channel);
}

/** The address of the playlist to hand to viewers, and what to say of it where it does not stay good for ever. */
export async function playlistForViewers(channel: string): Promise<{ text: string; done?: string }> {
  const path = await watchablePath(channel, '');
  const text = new URL(path, location.href).href;
  return path === playlistPath(channel) ? { text } : { text, done: `Copied, good for ${SIGNED_HOURS} h` };
}

/** All channels, and how far this computer's clock is behind the server's, in ms. `ask`: for a token, if need be. */
export async function listChannels(
  signal: AbortSignal,
  ask: boolean,
): Promise<{ channels: Channel[]; clockOffset: number }> {
  const response = await authorized('admin', '/api/v1/channels', { signal, cache: 'no-store' }, ask);
  const date = Date.parse(response.headers.get('Date') ?? '');
  // The Date header counts whole seconds: a smaller difference says nothing.
  const offset = Number.isFinite(date) && Math.abs(date - Date.now()) > 2500 ? date - Date.now() : 0;
  return { channels: parseChannels(await response.json()), clockOffset: offset };
}

export async function putChannel(name: string, source: SourceRequest, ladder: string | null): Promise<void> {
  await authorized('admin', `/api/v1/channels/${encodeURIComponent(name)}`, {
    method: 'PUT',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify(ladder ? { source, ladder } : { source }),
  });
}

export async function deleteChannel(name: string): Promise<void> {
  await authorized('admin', `/api/v1/channels/${encodeURIComponent(name)}`, { method: 'DELETE' });
}

/** The devices with what they carry. A server that knows none of this has none. Never asks for a token. */
export async function listDevices(signal: AbortSignal): Promise<Fleet> {
  try {
    const init: RequestInit = { signal, cache: 'no-store' };
    return parseFleet(await (await authorized('admin', '/api/v1/devices', init, false)).json());
  } catch (error) {
    if (error instanceof Problem && error.status === 404) return parseFleet(null);
    throw error;
  }
}

export function drainDevice(id: string): Promise<Moves> {
  return changeDevice(id, 'drain');
}

export function restoreDevice(id: string): Promise<Moves> {
  return changeDevice(id, 'restore');
}

async function changeDevice(id: string, how: 'drain' | 'restore'): Promise<Moves> {
  const url = `/api/v1/devices/${encodeURIComponent(id)}/${how}`;
  const json: unknown = await (await authorized('admin', url, { method: 'POST' })).json();
  return {
    moving: isObject(json) ? asNumber(json['moving']) : 0,
    stranded: isObject(json) ? asTexts(json['stranded'], MOST_LADDERS) : [],
  };
}

/** Fetches with the stored token; asks for one on 401 and tries again until it fits or the person gives up. */
export async function authorized(
  kind: TokenKind,
  url: string,
  init: RequestInit,
  ask = true,
): Promise<Response> {
  for (;;) {
    const token = storedToken(kind);
    const headers = new Headers(init.headers);
    if (token) headers.set('Authorization', `Bearer ${token}`);
    const response = await fetch(url, { ...init, headers });
    if (response.ok) return response;
    const problem = await readProblem(response);
    if (response.status !== 401) throw problem;
    if (token) forgetToken(kind, token);
    if (!ask || (await requestToken(kind, token !== null)) === null) throw problem;
  }
}

export async function readProblem(response: Response): Promise<Problem> {
  const seconds = Number(response.headers.get('Retry-After') ?? Number.NaN);
  const retryAfter = Number.isFinite(seconds) ? seconds : null;
  let text = `The server answered ${response.status} ${response.statusText}`.trim() + '.';
  try {
    const body: unknown = JSON.parse((await response.text()).slice(0, 20_000));
    if (isObject(body)) text = asText(body['detail']) || asText(body['title']) || text;
  } catch {
    // Not a problem document: a proxy in front, or an older server. The status line has to do.
  }
  return new Problem(response.status, text, retryAfter);
}

export function parseChannels(json: unknown): Channel[] {
  const list = isObject(json) ? json['channels'] : null;
  if (!Array.isArray(list)) return [];
  return list.map(parseChannel).filter((channel) => channel !== null);
}

export function parseChannel(json: unknown): Channel | null {
  if (!isObject(json)) return null;
  const name = asText(json['name']);
  if (!isChannelName(name)) return null;
  return {
    name,
    state: oneOf(json['state'], ['waiting', 'starting', 'live', 'interrupted'], 'waiting'),
    since: Date.parse(asText(json['since'])),
    source: parseSource(json['source']),
    ladder: asText(json['ladder']),
    renditions: asList(json['renditions']).map(parseRendition),
    viewers: asNumber(json['viewers']),
    // Only a path of this server: the page fetches from it and links to it.
    playlist: asText(json['playlist']).startsWith('/live/') ? asText(json['playlist']) : playlistPath(name),
    messages: asList(json['messages']).map((message) => ({
      level: oneOf(message['level'], ['info', 'warning', 'error'], 'info'),
      text: asText(message['text']),
    })),
    endReason: asText(json['end_reason']) || null,
    sessions: asNumber(json['sessions']),
    workerRestarts: asNumber(json['worker_restarts']),
    encodeLagMs: asNumberOrNull(json['encode_lag_ms']),
  };
}

export function parseFleet(json: unknown): Fleet {
  if (!isObject(json)) return { policy: '', devices: [], decisions: [] };
  const devices = new Map<string, Device>();
  for (const each of asList(json['devices']).slice(0, MOST_DEVICES)) {
    const device = parseDevice(each);
    // The id names the device in the API: without one, or with one seen before, nothing could be done with it.
    if (device.id !== '' && !devices.has(device.id)) devices.set(device.id, device);
  }
  return {
    policy: asText(json['policy']),
    devices: [...devices.values()],
    decisions: asList(json['decisions'])
      .slice(0, MOST_DECISIONS)
      .map((decision) => ({
        at: Date.parse(asText(decision['at'])),
        level: oneOf(decision['level'], ['info', 'warning', 'error'], 'info'),
        text: asText(decision['text']),
      })),
  };
}

type Json = Record<string, unknown>;

function parseDevice(json: Json): Device {
  const shares = (value: unknown) =>
    Array.isArray(value) ? value.slice(0, MOST_ENGINES).map((share) => asAmount(share)) : [];
  const left = asNumberOrNull(json['encoding_sessions_left']);
  const measured = json['measured'];
  return {
    id: asText(json['id']),
    name: asText(json['name']) || asText(json['id']),
    kind: asText(json['kind']),
    // A state that this page has no word for is not one to send ladders to.
    state: oneOf(json['state'], ['ready', 'draining', 'quarantined'], 'quarantined'),
    reason: asText(json['reason']) || null,
    workerPid: asNumberOrNull(json['worker_pid']),
    workerRestarts: asAmount(json['worker_restarts']),
    encode: shares(json['encode']),
    encodeLimit: asNumberOrNull(json['encode_limit']) ?? 1,
    decode: shares(json['decode']),
    decodeLimit: asNumberOrNull(json['decode_limit']) ?? 1,
    vramMib: asAmount(json['vram_mib']),
    vramLimitMib: asAmount(json['vram_limit_mib']),
    encodingSessions: asAmount(json['encoding_sessions']),
    encodingSessionsLeft: left === null ? null : Math.max(0, left),
    measured: isObject(measured)
      ? {
          encode: asNumberOrNull(measured['encode']),
          decode: asNumberOrNull(measured['decode']),
          vramMib: asNumberOrNull(measured['vram_mib']),
          temperatureC: asNumberOrNull(measured['temperature_c']),
          throttle: asTexts(measured['throttle'], 8),
          speed: asNumberOrNull(measured['speed']) ?? 1,
          cpu: asNumberOrNull(measured['cpu']),
        }
      : null,
    ladders: asList(json['ladders'])
      .slice(0, MOST_LADDERS)
      .map((ladder) => ({
        channel: asText(ladder['channel']),
        rungs: asTexts(ladder['rungs'], 32),
        suspended: asTexts(ladder['suspended'], 32),
        encode: asAmount(ladder['encode']),
        decode: ladder['decode'] === undefined ? null : asAmount(ladder['decode']),
        vramMib: asAmount(ladder['vram_mib']),
        moving: ladder['moving'] === true,
      })),
  };
}

function parseSource(json: unknown): Source | null {
  if (!isObject(json)) return null;
  return {
    kind: asText(json['kind']),
    detail: asText(json['detail']),
    remote: asText(json['remote']) || null,
    video: isObject(json['video']) ? parseTrack(json['video']) : null,
    audio: isObject(json['audio']) ? parseTrack(json['audio']) : null,
    packets: asNumber(json['packets']),
    lost: asNumber(json['lost']),
    repaired: asNumber(json['repaired']),
    refused: asNumber(json['refused']),
    engineDropped: asNumber(json['engine_dropped']),
  };
}

function parseRendition(json: Json): Rendition {
  return {
    ...parseTrack(json),
    id: asText(json['id']),
    kind: oneOf(json['kind'], ['video', 'audio'], 'video'),
    passthrough: json['passthrough'] === true,
    suspended: json['suspended'] === true,
    msn: asNumber(json['msn']),
    segments: asNumber(json['segments']),
    retainedBytes: asNumber(json['retained_bytes']),
  };
}

function parseTrack(json: Json): Track {
  return {
    codec: asText(json['codec']),
    width: asNumberOrNull(json['width']),
    height: asNumberOrNull(json['height']),
    frameRate: asNumberOrNull(json['frame_rate']),
    sampleRate: asNumberOrNull(json['sample_rate']),
    channels: asNumberOrNull(json['channels']),
    bitrate: asNumber(json['bitrate']),
  };
}

function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
function asList(value: unknown): Json[] {
  return Array.isArray(value) ? value.filter(isObject) : [];
}
function asText(value: unknown): string {
  return typeof value === 'string' ? value : '';
}
function asNumberOrNull(value: unknown): number | null {
  return typeof value === 'number' && Number.isFinite(value) ? value : null;
}
function asNumber(value: unknown): number {
  return asNumberOrNull(value) ?? 0;
}
/** A number that is never below nothing. */
function asAmount(value: unknown): number {
  return Math.max(0, asNumber(value));
}
function asTexts(value: unknown, most: number): string[] {
  return Array.isArray(value) ? value.slice(0, most).filter((each) => typeof each === 'string') : [];
}
function oneOf<T extends string>(value: unknown, allowed: readonly T[], otherwise: T): T {
  return allowed.find((each) => each === value) ?? otherwise;
}
