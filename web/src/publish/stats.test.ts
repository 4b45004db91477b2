import { describe, expect, it } from 'vitest';
import { summarize } from './stats';

const reports = (bytes: number, frames: number) => [
  { id: 'c', type: 'codec', mimeType: 'video/H264' },
  { id: 'a', type: 'outbound-rtp', kind: 'audio', bytesSent: 1000 },
  {
    id: 'v',
    type: 'outbound-rtp',
    kind: 'video',
    codecId: 'c',
    bytesSent: bytes,
    headerBytesSent: 0,
    framesSent: frames,
    frameWidth: 1280,
    frameHeight: 720,
    keyFramesEncoded: 3,
    nackCount: 4,
    pliCount: 5,
    qualityLimitationReason: 'cpu',
  },
  { id: 'r', type: 'remote-inbound-rtp', kind: 'video', roundTripTime: 0.05, fractionLost: 0.01 },
  { id: 'p', type: 'candidate-pair', nominated: true, state: 'succeeded', currentRoundTripTime: 0.012 },
];

describe('publisher statistics', () => {
  it('computes rates from two samples', () => {
    const first = summarize(reports(0, 0), 1000, null);
    expect(first).toMatchObject({ bitrate: 0, fps: 0 });
    const second = summarize(reports(375_000, 30), 2000, first?.sample ?? null);
    expect(second).toMatchObject({
      bitrate: 3_000_000,
      fps: 30,
      width: 1280,
      codec: 'H264',
      rtt: 0.012,
      loss: 0.01,
      keyFrames: 3,
      nacks: 4,
      plis: 5,
      limit: 'this computer is too slow',
    });
  });

  it('never shows a negative rate after a restart of the counters', () => {
    const before = { at: 0, bytes: 1e9, frames: 1e6 };
    expect(summarize(reports(10, 1), 1000, before)).toMatchObject({ bitrate: 0, fps: 0 });
  });

  it('gives null while no picture is sent', () => {
    expect(summarize([], 0, null)).toBeNull();
    expect(summarize([{ type: 'outbound-rtp', kind: 'audio' }], 0, null)).toBeNull();
  });
});
