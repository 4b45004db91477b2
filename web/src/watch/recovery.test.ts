import { describe, expect, it } from 'vitest';
import { backoffMs, mediaErrorRemedy, networkErrorRemedy, remedy } from './recovery';

describe('recovery', () => {
  it('backs off to a bound that still feels prompt when the publisher comes', () => {
    expect(backoffMs(0, 0)).toBe(800);
    expect(backoffMs(1, 0)).toBe(1200);
    expect(backoffMs(4, 0)).toBe(4000);
    expect(backoffMs(100_000, 1)).toBe(4600);
  });

  const at = (standing: number, quiet: number, jumped = false) =>
    remedy({ now: 100_000, movedAt: 100_000 - standing, grewAt: 100_000 - quiet, jumped });

  it('leaves a picture alone that moves or paused for a moment', () => {
    expect(at(0, 0)).toBe('none');
    expect(at(2400, 60_000)).toBe('none');
  });

  it('waits for the publisher while the playlist stands, however long', () => {
    expect(at(3000, 5001)).toBe('wait');
    expect(at(900_000, 900_000, true)).toBe('wait');
  });

  it('jumps once, then starts anew, where the playlist goes on without the picture', () => {
    expect(at(5000, 300)).toBe('none');
    expect(at(6000, 300)).toBe('jump');
    expect(at(7000, 300, true)).toBe('none');
    expect(at(12_001, 300, true)).toBe('reopen');
  });

  it('mends one media error in place and starts anew on the next', () => {
    expect(mediaErrorRemedy(10_000, null)).toBe('recover');
    expect(mediaErrorRemedy(14_000, 10_000)).toBe('reopen');
    expect(mediaErrorRemedy(16_000, 10_000)).toBe('recover');
  });

  it('keeps the player over a server that is silent or busy and starts anew where things are gone', () => {
    for (const status of [undefined, 0, 408, 429, 500, 503])
      expect(networkErrorRemedy(true, status)).toBe('resume');
    for (const status of [400, 403, 404, 410]) expect(networkErrorRemedy(true, status)).toBe('reopen');
    expect(networkErrorRemedy(false, 503)).toBe('reopen');
  });
});
