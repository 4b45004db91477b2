import { describe, expect, it } from 'vitest';
import { parseChannel, type Channel } from '../api';
import { HISTORY, History, byUrgency, lowestVariant, overview, sourceFacts, stateSentence } from './model';

function channel(name: string, rest: Record<string, unknown> = {}): Channel {
  const parsed = parseChannel({ name, state: 'live', ...rest });
  if (!parsed) throw new Error(`not a channel: ${name}`);
  return parsed;
}

describe('status page', () => {
  it('puts errors first, then who went away, then warnings, then the rest by name', () => {
    const channels = [
      channel('waiting', { state: 'waiting' }),
      channel('b-live'),
      channel('a-live'),
      channel('warned', { messages: [{ level: 'warning', text: 'w' }] }),
      channel('gone', { state: 'interrupted' }),
      channel('broken', { state: 'waiting', messages: [{ level: 'error', text: 'e' }] }),
      channel('noted', { messages: [{ level: 'info', text: 'i' }] }),
    ];
    expect(byUrgency(channels).map((each) => each.name)).toEqual([
      'broken',
      'gone',
      'warned',
      'a-live',
      'b-live',
      'noted',
      'waiting',
    ]);
    const sum = overview(channels);
    expect(sum.problems.map((problem) => problem.text)).toEqual(['e', 'w']);
    expect([sum.live, sum.waiting, sum.interrupted]).toEqual([4, 2, 1]);
  });

  it('says why nothing is there', () => {
    expect(stateSentence(channel('x', { state: 'waiting' }))).toBe('No publisher has come yet.');
    expect(
      stateSentence(channel('x', { state: 'interrupted', end_reason: 'timeout', sessions: 1 })),
    ).toContain('nothing came for too long');
    expect(
      stateSentence(channel('x', { state: 'waiting', sessions: 2, end_reason: 'new_reason' })),
    ).toContain('new_reason');
  });

  it('gives the facts of a source and no empty ones', () => {
    const source = {
      kind: 'rtsp',
      video: { codec: 'avc1.64001f', width: 1280, height: 720, frame_rate: 25, bitrate: 4e6 },
      packets: 990,
      lost: 10,
    };
    expect(sourceFacts(channel('x', { source }))).toEqual([
      ['Video', '1280×720, 25 fps'],
      ['', 'H.264 High 3.1'],
      ['Audio', 'none'],
      ['Input', '4.0 Mb/s'],
      ['Loss', '1.0 %'],
    ]);
    expect(sourceFacts(channel('x', { source: { kind: 'rtp' } }))).toEqual([]);
    expect(sourceFacts(channel('x', { source: { kind: 'rtp' }, encode_lag_ms: 42 }))).toEqual([
      ['Encoding', '42 ms'],
    ]);
  });

  it('keeps a bounded history in which every series is as long as time', () => {
    const history = new History();
    history.push(0, new Map([['a', 1]]));
    history.push(2, new Map([['b', 2]]));
    expect([...history.series]).toEqual([
      ['a', [1, null]],
      ['b', [null, 2]],
    ]);
    for (let i = 0; i < 2 * HISTORY; i++) history.push(4 + i, new Map([['b', 0]]));
    expect(history.times).toHaveLength(HISTORY);
    expect([...history.series.keys()]).toEqual(['b']);
    expect(history.series.get('b')).toHaveLength(HISTORY);
    expect(history.anything()).toBe(false);
  });

  it('finds the smallest picture, not the sound and not AVERAGE-BANDWIDTH', () => {
    const playlist = `#EXTM3U
#EXT-X-STREAM-INF:AVERAGE-BANDWIDTH=1,BANDWIDTH=5000000,RESOLUTION=1920x1080,CODECS="avc1.640028,mp4a.40.2"
v/0/index.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=400000,AVERAGE-BANDWIDTH=300000,RESOLUTION=426x240
v/240p/index.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=70000,CODECS="mp4a.40.2"
a/index.m3u8
`;
    expect(lowestVariant(playlist, 'http://h/live/c/index.m3u8')).toBe('http://h/live/c/v/240p/index.m3u8');
    expect(lowestVariant('#EXTM3U\n', 'http://h/')).toBeNull();
    expect(lowestVariant('<html>', 'http://h/')).toBeNull();
  });
});
