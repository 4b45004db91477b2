// The bar code survives scaling to any rung and refuses what it cannot read.
import { describe, expect, it } from 'vitest';
import { SQUARES, decode, encode, read, squareSide, unwrap, write, type Pixels } from './barcode';

const NOW = 1_795_000_123_456;

class Picture implements Pixels {
  data: Uint8ClampedArray;
  fillStyle = '#000';
  constructor(
    readonly width: number,
    readonly height: number,
    grey: number,
  ) {
    this.data = new Uint8ClampedArray(width * height * 4).fill(grey);
  }
  fillRect(x: number, y: number, w: number, h: number): void {
    const luma = this.fillStyle === '#fff' ? 255 : 0;
    for (let py = Math.round(y); py < Math.min(this.height, Math.round(y + h)); py++)
      for (let px = Math.round(x); px < Math.min(this.width, Math.round(x + w)); px++)
        this.data.fill(luma, (py * this.width + px) * 4, (py * this.width + px) * 4 + 3);
  }
  scaled(width: number, height: number): Picture {
    const out = new Picture(width, height, 0);
    for (let y = 0; y < height; y++)
      for (let x = 0; x < width; x++)
        for (let c = 0; c < 4; c++) {
          const from = Math.floor(((y + 0.5) * this.height) / height) * this.width;
          const at = (from + Math.floor(((x + 0.5) * this.width) / width)) * 4 + c;
          out.data[(y * width + x) * 4 + c] = this.data[at] ?? 0;
        }
    return out;
  }
  /** Limited contrast and noise, as a starved encoder leaves them. */
  degraded(): this {
    let seed = 7;
    for (let i = 0; i < this.data.length; i++) {
      seed = (seed * 1103515245 + 12345) % 2147483648;
      this.data[i] = 40 + (this.data[i] ?? 0) * 0.6 + (seed % 60) - 30;
    }
    return this;
  }
}

function card(width: number, height: number, time = NOW): Picture {
  const picture = new Picture(width, height, 120);
  write(picture, width, time);
  return picture;
}

describe('bar code', () => {
  it('lays out sync, bits and checksum as documented', () => {
    // 1^2^3^4^5^6^7 = 0
    const row = '10' + '0001001000110100010101100111' + '0000';
    expect(encode(0x1234567)).toEqual([...row].map((bit) => bit === '1'));
    expect(encode(NOW)).toHaveLength(SQUARES);
    expect(squareSide(1280)).toBe(32);
    expect(squareSide(854)).toBe(20);
  });

  it('decodes what it encodes and refuses a flipped square', () => {
    for (const time of [0, 1, 2 ** 28 - 1, 0xabcdef1, 0x5555555]) {
      const squares = encode(time);
      expect(decode(squares)).toBe(time);
      for (let i = 0; i < SQUARES; i++) {
        const flipped = squares.map((square, at) => (at === i ? !square : square));
        expect(decode(flipped)).toBeNull();
      }
    }
    expect(decode([])).toBeNull();
  });

  it('finds the nearest whole time on both sides of the wrap', () => {
    const wrap = 2 ** 28 * 6687;
    expect(unwrap(2 ** 28 - 5, wrap + 10)).toBe(wrap - 5);
    expect(unwrap(5, wrap - 10)).toBe(wrap + 5);
    expect(unwrap(NOW % 2 ** 28, NOW + 900)).toBe(NOW);
  });

  it('reads the published picture at every width, and every rung scaled from it', () => {
    for (const [width, height] of [
      [1920, 1080],
      [1280, 720],
      [854, 480],
      [640, 360],
      [426, 240],
    ] as const) {
      const picture = card(width, height);
      expect(read(picture, NOW + 1200)).toBe(NOW);
      for (const rung of [1080, 720, 480, 360, 240]) {
        if (rung >= height) continue;
        const scaled = picture.scaled(Math.round((rung * width) / height / 2) * 2, rung);
        expect(read(scaled, NOW + 1200), `${width}x${height} to ${rung}`).toBe(NOW);
      }
    }
  });

  it('reads a noisy, washed-out picture', () => {
    expect(read(card(640, 360).degraded(), NOW)).toBe(NOW);
  });

  it('gives null for a picture without a code, an empty one and a far-off time', () => {
    expect(read(new Picture(640, 360, 120), NOW)).toBeNull();
    expect(read(new Picture(640, 360, 255), NOW)).toBeNull();
    expect(read({ width: 0, height: 0, data: [] }, NOW)).toBeNull();
    expect(read(card(640, 360, NOW - 2 * 86_400_000), NOW)).toBeNull();
  });
});
