import { afterEach, describe, expect, it, vi } from 'vitest';
import {
  Problem,
  authorized,
  channelOfPath,
  drainDevice,
  listDevices,
  parseChannel,
  parseChannels,
  parseFleet,
  playlistForViewers,
  readProblem,
  watchablePath,
} from './api';
import { requestToken } from './ui/token';

vi.mock('./ui/token', () => {
  let token: string | null = null;
  return {
    storedToken: () => token,
    forgetToken: () => {
      token = null;
    },
    requestToken: vi.fn(() => {
      token = 'right';
      return Promise.resolve(token);
    }),
  };
});

afterEach(() => {
  vi.unstubAllGlobals();
  vi.clearAllMocks();
});

describe('the server’s JSON', () => {
  it('takes what it knows and neutral values for the rest', () => {
    const channel = parseChannel({
      name: 'demo',
      state: 'live',
      since: '2026-11-21T02:14:05Z',
      source: {
        kind: 'whip',
        detail: '/whip/demo',
        video: { codec: 'avc1.42e01f', width: 1280, bitrate: 'x' },
      },
      renditions: [
        { id: '720p', kind: 'video', passthrough: true, codec: 'avc1.64001f', bitrate: 3e6 },
        null,
        7,
      ],
      messages: [{ level: 'shout', text: '<img src=x>' }],
      playlist: 'javascript:alert(1)',
      end_reason: null,
    });
    expect(channel).toMatchObject({
      name: 'demo',
      since: Date.UTC(2026, 10, 21, 2, 14, 5),
      viewers: 0,
      playlist: '/live/demo/index.m3u8',
      endReason: null,
      messages: [{ level: 'info', text: '<img src=x>' }],
    });
    expect(channel?.source?.video).toMatchObject({ width: 1280, height: null, bitrate: 0 });
    expect(channel?.source?.audio).toBeNull();
    expect(channel?.renditions).toHaveLength(1);
    expect(channel?.renditions[0]?.suspended).toBe(false);
    expect(channel?.encodeLagMs).toBeNull();
  });

  it('leaves out what is no channel', () => {
    expect(
      parseChannels({ channels: [{ name: '../x' }, { name: 'a/b' }, 1, null, { name: 'ok' }] }),
    ).toHaveLength(1);
    expect(parseChannels(null)).toEqual([]);
    expect(parseChannels({ channels: 'no' })).toEqual([]);
  });

  it('takes the channel from the path and refuses other names', () => {
    expect(channelOfPath('/watch/main_stage-1')).toBe('main_stage-1');
    for (const path of ['/watch/', '/watch', '/watch/a%20b', `/watch/${'x'.repeat(65)}`])
      expect(channelOfPath(path)).toBeNull();
  });
});

describe('devices', () => {
  it('takes what it knows, each id once, and bounds what it keeps', () => {
    const fleet = parseFleet({
      policy: 'consolidate',
      devices: [
        {
          id: 'sim0',
          state: 'melting',
          encode: [0.4, -1, 'x', ...new Array<number>(1000).fill(0)],
          encoding_sessions_left: -3,
          measured: { encode: 0.4, temperature_c: null, throttle: ['thermal', 3], speed: 'slow' },
          ladders: [{ channel: 'cam1', rungs: ['v720', 7], vram_mib: -5 }, null],
        },
        { id: 'sim0' },
        { name: 'nameless' },
        4,
      ],
      decisions: new Array<unknown>(500).fill({ at: 'yesterday', level: 'shout', text: '<b>' }),
    });
    expect(fleet.devices).toHaveLength(1);
    expect(fleet.decisions).toHaveLength(100);
    expect(fleet.decisions[0]).toEqual({ at: Number.NaN, level: 'info', text: '<b>' });
    const [device] = fleet.devices;
    expect(device).toMatchObject({ name: 'sim0', state: 'quarantined', encodingSessionsLeft: 0 });
    expect(device?.encode.slice(0, 3)).toEqual([0.4, 0, 0]);
    expect(device?.encode).toHaveLength(16);
    expect(device?.measured).toEqual({
      encode: 0.4,
      decode: null,
      vramMib: null,
      temperatureC: null,
      throttle: ['thermal'],
      speed: 1,
      cpu: null,
    });
    expect(device?.ladders).toEqual([
      {
        channel: 'cam1',
        rungs: ['v720'],
        suspended: [],
        encode: 0,
        decode: null,
        vramMib: 0,
        moving: false,
      },
    ]);
    for (const nonsense of [null, [], 'x', { devices: {} }]) expect(parseFleet(nonsense).devices).toEqual([]);
  });

  it('has none on a server that knows none, and hands on every other refusal', async () => {
    let status = 404;
    vi.stubGlobal('fetch', () => Promise.resolve(new Response('{"detail":"No."}', { status })));
    expect((await listDevices(new AbortController().signal)).devices).toEqual([]);
    status = 401;
    await expect(listDevices(new AbortController().signal)).rejects.toMatchObject({ status: 401 });
    expect(requestToken).not.toHaveBeenCalled();
  });

  it('drains the device that is meant', async () => {
    const asked: string[] = [];
    vi.stubGlobal('fetch', (url: string, init: RequestInit) => {
      asked.push(`${init.method ?? 'GET'} ${url}`);
      return Promise.resolve(new Response('{"moving":3,"stranded":["cam4: encode full",1]}'));
    });
    expect(await drainDevice('a/b')).toEqual({ moving: 3, stranded: ['cam4: encode full'] });
    expect(asked).toEqual(['POST /api/v1/devices/a%2Fb/drain']);
  });
});

describe('signed paths', () => {
  const token = `~${'a'.repeat(60)}`;
  const server = (wants: (url: string) => number) => {
    const asked: string[] = [];
    vi.stubGlobal('fetch', (url: string, init?: RequestInit) => {
      asked.push(`${init?.method ?? 'GET'} ${url}`);
      const status = wants(url);
      const body = url.endsWith('/sign') ? { playlist: `/live/${token}/show/index.m3u8` } : { detail: 'No.' };
      return Promise.resolve(new Response(status === 204 ? null : JSON.stringify(body), { status }));
    });
    return asked;
  };

  it('watches the plain path where no token is wanted, or the server does not say', async () => {
    for (const status of [204, 404, 502]) {
      const asked = server(() => status);
      expect(await watchablePath('show', '')).toBe('/live/show/index.m3u8');
      expect(asked).toEqual(['GET /live/show/access']);
    }
    vi.stubGlobal('fetch', () => Promise.reject(new TypeError('no network')));
    expect(await watchablePath('show', '')).toBe('/live/show/index.m3u8');
  });

  it('takes the token of its own address, and does not sign for a viewer whose token is bad', async () => {
    let asked = server(() => 204);
    expect(await watchablePath('show', `#${token}`)).toBe(`/live/${token}/show/index.m3u8`);
    expect(asked).toEqual([`GET /live/${token}/show/access`]);
    asked = server(() => 403);
    await expect(watchablePath('show', `#${token}`)).rejects.toMatchObject({ status: 403, message: 'No.' });
    expect(asked).toHaveLength(1);
  });

  it('signs for an operator', async () => {
    const asked = server((url) => (url.endsWith('/sign') ? 200 : 403));
    expect(await watchablePath('show', '#other')).toBe(`/live/${token}/show/index.m3u8`);
    expect(asked).toEqual(['GET /live/show/access', 'POST /api/v1/channels/show/sign']);
  });

  it('hands viewers a signed address where they need one, and says how long it is good', async () => {
    vi.stubGlobal('location', { href: 'https://live.example.org/' });
    server((url) => (url.endsWith('/sign') ? 200 : 403));
    expect(await playlistForViewers('show')).toEqual({
      text: `https://live.example.org/live/${token}/show/index.m3u8`,
      done: 'Copied, good for 12 h',
    });
    server(() => 204);
    expect(await playlistForViewers('show')).toEqual({
      text: 'https://live.example.org/live/show/index.m3u8',
    });
    server(() => 403);
    await expect(playlistForViewers('show')).rejects.toMatchObject({ status: 403 });
  });
});

describe('refusals', () => {
  it('shows the detail of a problem document and when to come back', async () => {
    const body = JSON.stringify({ type: '/problems/channel-busy', title: 'Channel busy', detail: 'In use.' });
    const problem = await readProblem(new Response(body, { status: 503, headers: { 'Retry-After': '4' } }));
    expect(problem).toBeInstanceOf(Problem);
    expect([problem.status, problem.message, problem.retryAfter]).toEqual([503, 'In use.', 4]);
  });

  it('makes do with the status line of anything else', async () => {
    const problem = await readProblem(
      new Response('<h1>Bad gateway</h1>', { status: 502, statusText: 'Bad Gateway' }),
    );
    expect(problem.message).toBe('The server answered 502 Bad Gateway.');
    expect(problem.retryAfter).toBeNull();
  });

  it('asks for a token on 401 and sends it', async () => {
    const calls: (string | null)[] = [];
    vi.stubGlobal('fetch', (_url: string, init: { headers: Headers }) => {
      const sent = init.headers.get('Authorization');
      calls.push(sent);
      return Promise.resolve(new Response('{}', { status: sent === 'Bearer right' ? 200 : 401 }));
    });
    await expect(authorized('admin', '/x', {}, false)).rejects.toMatchObject({ status: 401 });
    expect(requestToken).not.toHaveBeenCalled();
    expect((await authorized('admin', '/x', {})).status).toBe(200);
    expect(calls).toEqual([null, null, 'Bearer right']);
  });
});
