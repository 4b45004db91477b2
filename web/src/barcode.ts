// The clock in the picture as a row of squares, written by the test card and read back from the player.
//
// A row of 34 squares along the top left. Square side = picture width / 40, rounded down to an even number of
// pixels so that 4:2:0 chroma falls on whole samples; the row starts half a square from the left and the top.
// 0 white, 1 black (sync); 2..=29 the 28 bits of (unix ms mod 2^28), most significant first, white = 1;
// 30..=33 a checksum: xor of the seven nibbles.

export const SQUARES = 34;
const BITS = 28;
const MODULUS = 2 ** BITS;

/** What the reader needs of an `ImageData`. */
export interface Pixels {
  readonly width: number;
  readonly height: number;
  readonly data: ArrayLike<number>;
}

/** What the writer needs of a canvas context. */
export interface Painter {
  fillStyle: string | CanvasGradient | CanvasPattern;
  fillRect(x: number, y: number, w: number, h: number): void;
}

export function squareSide(pictureWidth: number): number {
  return Math.max(2, Math.floor(pictureWidth / 40 / 2) * 2);
}

/** The squares of a time, white = true. */
export function encode(unixMs: number): boolean[] {
  const value = ((Math.floor(unixMs) % MODULUS) + MODULUS) % MODULUS;
  let check = 0;
  for (let shift = 0; shift < BITS; shift += 4) check ^= (value >>> shift) & 15;
  const squares = [true, false];
  for (let bit = BITS - 1; bit >= 0; bit--) squares.push(((value >>> bit) & 1) === 1);
  for (let bit = 3; bit >= 0; bit--) squares.push(((check >>> bit) & 1) === 1);
  return squares;
}

/** The value of a row of squares (unix ms mod 2^28), or null where sync or checksum are wrong. */
export function decode(squares: readonly boolean[]): number | null {
  if (squares.length !== SQUARES || squares[0] !== true || squares[1] !== false) return null;
  let value = 0;
  for (let i = 0; i < BITS; i++) value = value * 2 + (squares[2 + i] ? 1 : 0);
  return encode(value).every((square, i) => square === squares[i]) ? value : null;
}

/** The whole time, given that it is the one nearest to `nowMs`. */
export function unwrap(value: number, nowMs: number): number {
  const near = Math.floor(nowMs / MODULUS) * MODULUS + value;
  if (near - nowMs > MODULUS / 2) return near - MODULUS;
  if (nowMs - near > MODULUS / 2) return near + MODULUS;
  return near;
}

/** Paints the row, with a quiet zone so that a bright picture beside it does not bleed in. */
export function write(painter: Painter, pictureWidth: number, unixMs: number): void {
  const side = squareSide(pictureWidth);
  painter.fillStyle = '#000';
  painter.fillRect(0, 0, side * (SQUARES + 1), side * 2);
  painter.fillStyle = '#fff';
  encode(unixMs).forEach((white, i) => {
    if (white) painter.fillRect(side * (0.5 + i), side * 0.5, side, side);
  });
}

/** Rows of the picture that the reader looks at, as a share of its width. */
export const STRIP = 2 / 40;

// Rounding the side down makes the row a little narrower than 34/40 of the picture, by an amount that depends on
// the width of the picture as published, which a reader of a scaled rendition does not know.
const PUBLISHED_WIDTHS = [
  1280, 1920, 640, 854, 426, 960, 848, 480, 852, 1024, 2560, 3840, 720, 768, 800, 320,
];

/** Largest share of the row that may look otherwise than what was read says: edges blurred by scaling and coding. */
const MISFIT = 0.12;

/**
 * Reads the row from the top of a frame of any size and gives the capture time, or null.
 *
 * Every plausible width as published is tried; four check bits alone would let one wrong row in sixteen through, so
 * the reading that explains the picture best is taken, and none that is more than a day from `nowMs`.
 */
export function read(pixels: Pixels, nowMs: number): number | null {
  const sides = new Set([pixels.width, ...PUBLISHED_WIDTHS].map((width) => squareSide(width) / width));
  let best: { time: number; misfit: number } | null = null;
  for (const share of sides) {
    const side = share * pixels.width;
    const value = readAt(pixels, side);
    if (value === null) continue;
    const time = unwrap(value, nowMs);
    const misfit = misfitOf(pixels, side, encode(value));
    if (Math.abs(time - nowMs) < 86_400_000 && misfit < (best?.misfit ?? MISFIT)) best = { time, misfit };
  }
  return best?.time ?? null;
}

function readAt(pixels: Pixels, side: number): number | null {
  const squares: boolean[] = [];
  for (let i = 0; i < SQUARES; i++) {
    const luma = lumaAround(pixels, side * (1 + i), side, side / 5);
    if (luma === null) return null;
    squares.push(luma > 127);
  }
  return decode(squares);
}

/** Share of the pixels across the row that are not as these squares say. */
function misfitOf(pixels: Pixels, side: number, squares: readonly boolean[]): number {
  const end = Math.floor(side * (SQUARES + 0.5));
  let wrong = 0;
  for (let x = Math.ceil(side / 2); x < end; x++) {
    const luma = lumaAround(pixels, x, side, 0) ?? 0;
    if (luma > 127 !== squares[Math.floor((x + 0.5) / side - 0.5)]) wrong++;
  }
  return wrong / (end - side / 2);
}

/** Mean luma of a small box around a square's centre, to be steady against coding noise. */
function lumaAround(pixels: Pixels, cx: number, cy: number, reach: number): number | null {
  const x0 = Math.max(0, Math.floor(cx - reach));
  const x1 = Math.min(pixels.width - 1, Math.floor(cx + reach));
  const y0 = Math.max(0, Math.floor(cy - reach));
  const y1 = Math.min(pixels.height - 1, Math.floor(cy + reach));
  let sum = 0;
  let count = 0;
  for (let y = y0; y <= y1; y++) {
    for (let x = x0; x <= x1; x++) {
      const at = (y * pixels.width + x) * 4;
      const [r = 0, g = 0, b = 0] = [pixels.data[at], pixels.data[at + 1], pixels.data[at + 2]];
      sum += 0.2126 * r + 0.7152 * g + 0.0722 * b;
      count++;
    }
  }
  return count === 0 ? null : sum / count;
}
