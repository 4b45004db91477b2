import { describe, expect, it } from 'vitest';
import {
  formatBitrate,
  formatBytes,
  formatCodec,
  formatDuration,
  formatFrameRate,
  formatLatency,
  formatMebibytes,
  formatMemoryOf,
  formatPercent,
} from './format';

describe('numbers as people read them', () => {
  it('writes bit rates and sizes without a jump at the unit border', () => {
    expect([0, 999, 1000, 700_400, 999_499, 999_500, 6_040_000, 1.5e9].map(formatBitrate)).toEqual([
      '0 b/s',
      '999 b/s',
      '1 kb/s',
      '700 kb/s',
      '999 kb/s',
      '1.0 Mb/s',
      '6.0 Mb/s',
      '1.50 Gb/s',
    ]);
    expect([Number.NaN, -1, Infinity].map(formatBitrate)).toEqual(['–', '–', '–']);
    expect([0, 700, 1023, 1024, 12_000, 144_000, -1].map(formatMebibytes)).toEqual([
      '0 MiB',
      '700 MiB',
      '1023 MiB',
      '1.0 GiB',
      '11.7 GiB',
      '141 GiB',
      '–',
    ]);
    expect(formatMemoryOf(840, 12_000)).toBe('0.8 of 11.7 GiB');
    expect([0, 500].map((part) => formatMemoryOf(part, 144_000))).toEqual(['0 of 141 GiB', '0.5 of 141 GiB']);
    expect(formatMemoryOf(12, 512)).toBe('12 of 512 MiB');
    expect([12, 1200, 2_500_000].map(formatBytes)).toEqual(['12 B', '1 kB', '2.5 MB']);
  });

  it('writes durations in two units', () => {
    expect([-3, 14.9, 60, 200, 7380, 86_400 * 5 + 4 * 3600].map(formatDuration)).toEqual([
      '0 s',
      '14 s',
      '1 min',
      '3 min 20 s',
      '2 h 3 min',
      '5 d 4 h',
    ]);
  });

  it('writes latency, frame rate and loss', () => {
    expect([0.85, 0.9996, 1.24, Number.NaN].map(formatLatency)).toEqual(['850 ms', '1.0 s', '1.2 s', '–']);
    expect([30, 29.97002997, 12.5].map(formatFrameRate)).toEqual(['30', '29.97', '12.5']);
    expect(formatPercent(0, 0)).toBe('0 %');
    expect(formatPercent(1, 100_000)).toBe('< 0.01 %');
    expect(formatPercent(12, 1000)).toBe('1.2 %');
  });

  it('names codecs', () => {
    expect(formatCodec('avc1.640028')).toBe('H.264 High 4.0');
    expect(formatCodec('avc1.42e01f')).toBe('H.264 Baseline 3.1');
    expect(formatCodec('avc1')).toBe('H.264');
    expect(formatCodec('mp4a.40.2')).toBe('AAC');
    expect(formatCodec('opus')).toBe('Opus');
    expect(formatCodec('')).toBe('');
    expect(formatCodec('<b>')).toBe('<b>');
  });
});
