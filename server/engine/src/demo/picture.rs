//! The demo's picture: a fish climbing a ladder of pools, a clock to read and the same clock as a bar code for machines.
//!
//! Drawn straight into planar 4:2:0; what does not move is drawn once. Nothing here needs a font or an image file.

/// The clock that a machine reads off the picture.
///
/// A row of 34 squares at the top left, their side the picture's width / 40 (rounded down to even), the row's corner
/// half a square from the left and from the top. Square 0 is white and square 1 black; squares 2 to 29 are the 28 low
/// bits of the capture time in Unix milliseconds, the highest first, white for 1; squares 30 to 33 are a checksum, the
/// exclusive or of the value's seven groups of four bits. `web/src/barcode.ts` reads it.
pub(super) fn barcode(unix_ms: u64) -> [bool; 34] {
    let value = unix_ms & 0x0fff_ffff;
    let checksum = (0..7).fold(0, |sum, nibble| sum ^ (value >> (4 * nibble)) & 0xf);
    let mut squares = [false; 34];
    for (n, square) in squares.iter_mut().enumerate() {
        *square = match n {
            0 => true,
            1 => false,
            2..30 => value >> (29 - n) & 1 == 1,
            _ => checksum >> (33 - n) & 1 == 1,
        };
    }
    squares
}

/// Width and height of the picture; the drawing's coordinates are its pixels.
pub(super) const WIDTH: usize = 1280;
pub(super) const HEIGHT: usize = 720;
/// Bytes of a picture: Y, then U and V at half the size each way, rows without padding.
pub(super) const SIZE: usize = WIDTH * HEIGHT * 3 / 2;

/// BT.709, limited range.
#[derive(Clone, Copy)]
struct Colour {
    y: f32,
    u: f32,
    v: f32,
}

const fn rgb(hex: u32) -> Colour {
    let (r, g, b) = ((hex >> 16 & 255) as f32, (hex >> 8 & 255) as f32, (hex & 255) as f32);
    Colour {
        y: 16.0 + 0.1826 * r + 0.6142 * g + 0.0620 * b,
        u: 128.0 - 0.1006 * r - 0.3386 * g + 0.4392 * b,
        v: 128.0 + 0.4392 * r - 0.3989 * g - 0.0403 * b,
    }
}

const SKY_TOP: Colour = rgb(0x071a2c);
const SKY_LOW: Colour = rgb(0x14496a);
const GLOW: Colour = rgb(0xffc98a);
const HILL_FAR: Colour = rgb(0x123f58);
const HILL_NEAR: Colour = rgb(0x0d3147);
const WALL: Colour = rgb(0x5f7f8f);
const WALL_SHADE: Colour = rgb(0x2c4757);
const WATER: Colour = rgb(0x1fa3b3);
const WATER_DEEP: Colour = rgb(0x0b4a63);
const FOAM: Colour = rgb(0xd9f6f5);
const FISH: Colour = rgb(0xff8a4c);
const FISH_BELLY: Colour = rgb(0xffd9a8);
const INK: Colour = rgb(0xf4fbff);
const INK_SOFT: Colour = rgb(0x9fc4d6);
const DARK: Colour = rgb(0x06131f);

const POOLS: usize = 6;
const POOL_WIDTH: f32 = WIDTH as f32 / POOLS as f32;
/// A fish's way through all pools.
const CLIMB_MS: u64 = 9_000;

fn surface(pool: usize) -> f32 {
    622.0 - 50.0 * pool as f32
}

/// The demo's pictures, one per capture time.
pub(super) struct Painter {
    background: Vec<u8>,
    /// Coverage of `GLYPHS` at the big clock's size.
    digits: Vec<Mask>,
}

/// How much of each pixel a shape covers, 0 to 1.
struct Mask {
    width: usize,
    height: usize,
    coverage: Vec<f32>,
}

/// Digit height of the clock.
const CLOCK_SIZE: f32 = 104.0;
const CLOCK_AT: (f32, f32) = (64.0, 178.0);
const GLYPHS: &[u8] = b"0123456789:.";

impl Painter {
    pub(super) fn new() -> Self {
        let mut background = vec![0; SIZE];
        paint_background(&mut Canvas::new(&mut background));
        let digits = GLYPHS.iter().map(|c| mask_of(*c, CLOCK_SIZE)).collect();
        Self { background, digits }
    }

    /// Draws the picture of `unix_ms` into `frame`, which is `SIZE` long; a shorter one is left as it is. `beep` lights
    /// the lamp that goes with the tone.
    pub(super) fn paint(&self, frame: &mut [u8], unix_ms: u64, beep: bool) {
        let Some(frame) = frame.get_mut(..SIZE) else { return };
        frame.copy_from_slice(&self.background);
        let canvas = &mut Canvas::new(frame);
        paint_current(canvas, unix_ms);
        paint_fish(canvas, unix_ms);
        self.paint_clock(canvas, unix_ms);
        let lamp = if beep { GLOW } else { HILL_FAR };
        canvas.shape((1196.0, 16.0, 32.0, 32.0), lamp, 1.0, |x, y| circle(x, y, 1212.0, 32.0, 13.0));
        // A sweep once a second along the lower edge: uneven motion shows at a glance.
        let done = (unix_ms % 1000) as f32 / 1000.0 * WIDTH as f32;
        canvas.rectangle(0, HEIGHT - 8, done as usize, 8, GLOW);
        paint_barcode(canvas, unix_ms);
    }

    fn paint_clock(&self, canvas: &mut Canvas<'_>, unix_ms: u64) {
        let mut pen = CLOCK_AT.0;
        for c in clock_text(unix_ms) {
            let mask = GLYPHS.iter().position(|g| *g == c).and_then(|at| self.digits.get(at));
            let Some(mask) = mask else { continue };
            canvas.stamp(mask, pen as usize, CLOCK_AT.1 as usize, INK);
            pen += advance(c, CLOCK_SIZE);
        }
    }
}

/// `HH:MM:SS.mmm` in UTC.
fn clock_text(unix_ms: u64) -> [u8; 12] {
    let (ms, s) = (unix_ms % 1000, unix_ms / 1000 % 86_400);
    let digit = |v: u64| b'0' + u8::try_from(v % 10).unwrap_or(0);
    let (h, m, s) = (s / 3600, s / 60 % 60, s % 60);
    let d = |v: u64| [digit(v / 10), digit(v)];
    let ([h1, h0], [m1, m0], [s1, s0]) = (d(h), d(m), d(s));
    [h1, h0, b':', m1, m0, b':', s1, s0, b'.', digit(ms / 100), digit(ms / 10), digit(ms)]
}

fn paint_background(canvas: &mut Canvas<'_>) {
    let (w, h) = (WIDTH as f32, HEIGHT as f32);
    canvas.shape((0.0, 0.0, w, h), SKY_TOP, 1.0, |_, _| 1.0);
    canvas.shape((0.0, 0.0, w, h), SKY_LOW, 1.0, |_, y| (y / 560.0).clamp(0.0, 1.0));
    // A low sun behind the upper pools.
    canvas.shape((0.0, 0.0, w, h), GLOW, 0.55, |x, y| (1.0 - (x - 1010.0).hypot(y - 250.0) / 420.0).max(0.0).powi(3));
    canvas.shape((900.0, 140.0, 220.0, 220.0), GLOW, 0.9, |x, y| circle(x, y, 1010.0, 250.0, 62.0));
    canvas.shape((0.0, 250.0, w, h), HILL_FAR, 1.0, |x, y| {
        below(y, 430.0 - 60.0 * (x / 190.0).sin() - 34.0 * (x / 83.0 + 1.0).sin())
    });
    canvas.shape((0.0, 300.0, w, h), HILL_NEAR, 1.0, |x, y| {
        below(y, 520.0 - 52.0 * (x / 260.0 + 2.0).sin() - 22.0 * (x / 71.0).sin())
    });
    for pool in 0..POOLS {
        let (left, top) = (pool as f32 * POOL_WIDTH, surface(pool));
        canvas.shape((left, top, POOL_WIDTH, h - top), WATER, 1.0, |_, _| 1.0);
        canvas.shape((left, top, POOL_WIDTH, h - top), WATER_DEEP, 1.0, |_, y| ((y - top) / 150.0).clamp(0.0, 1.0));
        canvas.shape((left, top, POOL_WIDTH, 3.0), FOAM, 0.8, |_, _| 1.0);
        if pool > 0 {
            // The wall that holds the pool, and the water that spills over it.
            let foot = h - top;
            canvas.shape((left - 12.0, top - 6.0, 26.0, foot), WALL_SHADE, 1.0, |x, y| {
                rounded(x, y, left - 10.0, top - 4.0, 22.0, foot + 40.0, 6.0)
            });
            canvas.shape((left - 12.0, top - 6.0, 26.0, foot), WALL, 1.0, |x, y| {
                rounded(x, y, left - 10.0, top - 4.0, 10.0, foot + 40.0, 5.0)
            });
            let fall = surface(pool - 1) - top;
            canvas.shape((left - 30.0, top - 4.0, 26.0, fall + 8.0), FOAM, 0.75, |x, y| {
                let down = ((y - top) / fall).clamp(0.0, 1.0);
                let edge = left - 10.0 - 9.0 * down.sqrt();
                if x < edge && x > edge - 7.0 { 0.9 - 0.5 * down } else { 0.0 }
            });
        }
    }
    write(canvas, b"FISHLADDER", 64.0, 96.0, 40.0, INK);
    write(canvas, b"DEMO CHANNEL", 384.0, 104.0, 26.0, INK_SOFT);
    write(canvas, b"UTC", 66.0, 312.0, 26.0, INK_SOFT);
}

/// Light on the water, drifting down the ladder.
fn paint_current(canvas: &mut Canvas<'_>, unix_ms: u64) {
    for pool in 0..POOLS {
        for strand in 0..4u64 {
            let seed = pool as u64 * 977 + strand * 389;
            let length = 26.0 + (seed % 23) as f32;
            // Between the walls.
            let room = POOL_WIDTH - 44.0 - length;
            let drift = (unix_ms / 12 + seed) % room as u64;
            let left = pool as f32 * POOL_WIDTH + 26.0 + room - drift as f32;
            let top = surface(pool) + 12.0 + (strand as f32) * 17.0;
            canvas.shape((left, top, length, 4.0), FOAM, 0.32, |x, y| rounded(x, y, left, top, length, 4.0, 2.0));
        }
    }
}

fn paint_fish(canvas: &mut Canvas<'_>, unix_ms: u64) {
    let way = (unix_ms % CLIMB_MS) as f32 / CLIMB_MS as f32 * (POOLS as f32 + 0.6) - 0.3;
    let (cx, cy) = fish_at(way);
    let (ax, ay) = fish_at(way + 0.02);
    let angle = (ay - cy).atan2(ax - cx);
    let wag = ((unix_ms % 400) as f32 / 400.0 * std::f32::consts::TAU).sin() * 5.0;
    let (sin, cos) = angle.sin_cos();
    // Into the fish's own axes: x forwards, y down.
    let own = move |x: f32, y: f32| ((x - cx) * cos + (y - cy) * sin, (y - cy) * cos - (x - cx) * sin);
    let body = move |x: f32, y: f32| {
        let (x, y) = own(x, y);
        let torso = 1.0 - (x / 40.0).hypot(y / 17.0);
        (torso * 14.0 + 0.5).clamp(0.0, 1.0)
    };
    let tail = move |x: f32, y: f32| {
        let (x, y) = own(x, y);
        let back = -30.0 - x;
        if !(0.0..=26.0).contains(&back) {
            return 0.0;
        }
        let sway = wag * back / 26.0;
        ((3.0 + back * 0.62) - (y - sway).abs() + 0.5).clamp(0.0, 1.0)
            * ((27.0 - back - (6.0 - (y - sway).abs() * 0.5).max(0.0)).clamp(0.0, 1.0))
    };
    let (left, top) = (cx - 64.0, cy - 64.0);
    canvas.shape((left, top, 128.0, 128.0), FISH, 1.0, tail);
    canvas.shape((left, top, 128.0, 128.0), FISH, 1.0, body);
    canvas.shape((left, top, 128.0, 128.0), FISH_BELLY, 0.9, move |x, y| {
        let (_, v) = own(x, y);
        body(x, y) * ((v - 4.0) / 6.0).clamp(0.0, 1.0)
    });
    canvas.shape((left, top, 128.0, 128.0), INK, 1.0, move |x, y| {
        let (u, v) = own(x, y);
        circle(u, v, 23.0, -4.0, 5.0)
    });
    canvas.shape((left, top, 128.0, 128.0), DARK, 1.0, move |x, y| {
        let (u, v) = own(x, y);
        circle(u, v, 24.5, -4.0, 2.6)
    });
}

/// Swims in a pool, then leaps into the next: `way` counts pools.
fn fish_at(way: f32) -> (f32, f32) {
    let last = POOLS as f32 - 1.0;
    let pool = way.floor().clamp(0.0, last);
    let within = way - pool;
    // The middle of a leap is above a wall.
    let x = way * POOL_WIDTH + 0.19 * POOL_WIDTH;
    let here = surface(pool as usize) + 34.0 + (way * 9.0).sin() * 4.0;
    let leap_begins = 0.62;
    if within < leap_begins || pool >= last {
        return (x, here);
    }
    let t = (within - leap_begins) / (1.0 - leap_begins);
    let there = surface(pool as usize + 1) + 34.0 + ((pool + 1.0) * 9.0).sin() * 4.0;
    let here = surface(pool as usize) + 34.0 + ((pool + leap_begins) * 9.0).sin() * 4.0;
    (x, here + (there - here) * t - 4.0 * 78.0 * t * (1.0 - t))
}

fn paint_barcode(canvas: &mut Canvas<'_>, unix_ms: u64) {
    let side = (WIDTH / 40) & !1;
    for (n, white) in barcode(unix_ms).into_iter().enumerate() {
        let colour = if white { rgb(0xffffff) } else { rgb(0) };
        canvas.rectangle(side / 2 + n * side, side / 2, side, side, colour);
    }
}

struct Canvas<'a> {
    y: &'a mut [u8],
    u: &'a mut [u8],
    v: &'a mut [u8],
}

impl<'a> Canvas<'a> {
    /// `frame` is `SIZE` long.
    fn new(frame: &'a mut [u8]) -> Self {
        let (y, chroma) = frame.split_at_mut(WIDTH * HEIGHT);
        let (u, v) = chroma.split_at_mut(WIDTH * HEIGHT / 4);
        Self { y, u, v }
    }

    /// Lays `colour` over the pixels of a box, as much as `coverage` says at each pixel's centre.
    fn shape(
        &mut self,
        (left, top, width, height): (f32, f32, f32, f32),
        colour: Colour,
        opacity: f32,
        coverage: impl Fn(f32, f32) -> f32,
    ) {
        let clip = |v: f32, max: usize| (v.max(0.0) as usize).min(max);
        let (x0, y0) = (clip(left.floor(), WIDTH) & !1, clip(top.floor(), HEIGHT) & !1);
        let (x1, y1) = (clip((left + width).ceil(), WIDTH), clip((top + height).ceil(), HEIGHT));
        for row in y0..y1 {
            for column in x0..x1 {
                let a = coverage(column as f32 + 0.5, row as f32 + 0.5) * opacity;
                if a > 0.0 {
                    blend(self.y, row * WIDTH + column, colour.y, a);
                }
                if row % 2 == 0 && column % 2 == 0 {
                    let a = coverage(column as f32 + 1.0, row as f32 + 1.0) * opacity;
                    if a > 0.0 {
                        let at = row / 2 * (WIDTH / 2) + column / 2;
                        blend(self.u, at, colour.u, a);
                        blend(self.v, at, colour.v, a);
                    }
                }
            }
        }
    }

    fn stamp(&mut self, mask: &Mask, left: usize, top: usize, colour: Colour) {
        for (row, line) in mask.coverage.chunks_exact(mask.width).enumerate().take(mask.height) {
            for (column, a) in line.iter().enumerate().filter(|(_, a)| **a > 0.0) {
                let (x, y) = (left + column, top + row);
                if x < WIDTH && y < HEIGHT {
                    blend(self.y, y * WIDTH + x, colour.y, *a);
                    if x % 2 == 0 && y % 2 == 0 {
                        let at = y / 2 * (WIDTH / 2) + x / 2;
                        blend(self.u, at, colour.u, *a);
                        blend(self.v, at, colour.v, *a);
                    }
                }
            }
        }
    }

    /// Solid and without soft edges; even coordinates keep its colour inside it.
    fn rectangle(&mut self, left: usize, top: usize, width: usize, height: usize, colour: Colour) {
        fill(self.y, WIDTH, left, top, width, height, colour.y);
        fill(self.u, WIDTH / 2, left / 2, top / 2, width / 2, height / 2, colour.u);
        fill(self.v, WIDTH / 2, left / 2, top / 2, width / 2, height / 2, colour.v);
    }
}

fn blend(plane: &mut [u8], at: usize, value: f32, a: f32) {
    if let Some(p) = plane.get_mut(at) {
        let now = f32::from(*p);
        *p = (now + (value - now) * a.min(1.0) + 0.5) as u8;
    }
}

fn fill(plane: &mut [u8], stride: usize, left: usize, top: usize, width: usize, height: usize, value: f32) {
    for line in plane.chunks_exact_mut(stride).skip(top).take(height) {
        if let Some(part) = line.get_mut(left..(left + width).min(stride)) {
            part.fill((value + 0.5) as u8);
        }
    }
}

fn circle(x: f32, y: f32, cx: f32, cy: f32, r: f32) -> f32 {
    (r - (x - cx).hypot(y - cy) + 0.5).clamp(0.0, 1.0)
}

fn below(y: f32, edge: f32) -> f32 {
    (y - edge + 0.5).clamp(0.0, 1.0)
}

fn rounded(x: f32, y: f32, left: f32, top: f32, width: f32, height: f32, r: f32) -> f32 {
    let dx = ((x - left - width / 2.0).abs() - width / 2.0 + r).max(0.0);
    let dy = ((y - top - height / 2.0).abs() - height / 2.0 + r).max(0.0);
    (r - dx.hypot(dy) + 0.5).clamp(0.0, 1.0)
}

/// A line from (x, y) to (x, y) in a box one unit high and `WIDTH_OF_GLYPH` wide, y downwards.
type Stroke = (f32, f32, f32, f32);
const GLYPH_WIDTH: f32 = 0.56;
const STROKE_WIDTH: f32 = 0.125;

fn advance(c: u8, size: f32) -> f32 {
    size * match c {
        b':' | b'.' => 0.36,
        b'I' => 0.34,
        b' ' => 0.5,
        _ => GLYPH_WIDTH + 0.24,
    }
}

fn write(canvas: &mut Canvas<'_>, text: &[u8], left: f32, top: f32, size: f32, colour: Colour) {
    let mut pen = left;
    for c in text {
        canvas.stamp(&mask_of(*c, size), pen as usize, top as usize, colour);
        pen += advance(*c, size);
    }
}

fn mask_of(c: u8, size: f32) -> Mask {
    let strokes = strokes(c);
    let (width, height) = ((advance(c, size)).ceil() as usize, (size * (1.0 + STROKE_WIDTH)).ceil() as usize);
    let mut coverage = Vec::with_capacity(width * height);
    let inset = size * STROKE_WIDTH / 2.0;
    for row in 0..height {
        for column in 0..width {
            let (x, y) = (column as f32 + 0.5 - inset, row as f32 + 0.5 - inset);
            let nearest = strokes.iter().map(|s| distance(x / size, y / size, *s)).fold(f32::MAX, f32::min) * size;
            coverage.push((inset - nearest + 0.5).clamp(0.0, 1.0));
        }
    }
    Mask { width, height, coverage }
}

fn distance(x: f32, y: f32, (x0, y0, x1, y1): Stroke) -> f32 {
    let (dx, dy) = (x1 - x0, y1 - y0);
    let length = dx * dx + dy * dy;
    let t = if length > 0.0 { (((x - x0) * dx + (y - y0) * dy) / length).clamp(0.0, 1.0) } else { 0.0 };
    (x - x0 - t * dx).hypot(y - y0 - t * dy)
}

/// An arc as short lines: centre, radii, from and to in quarter turns clockwise from the right.
fn arc(cx: f32, cy: f32, rx: f32, ry: f32, from: f32, to: f32) -> Vec<Stroke> {
    const STEPS: usize = 28;
    let at = |n: usize| {
        let turn = (from + (to - from) * n as f32 / STEPS as f32) * std::f32::consts::FRAC_PI_2;
        (cx + rx * turn.cos(), cy + ry * turn.sin())
    };
    (0..STEPS).map(|n| (at(n).0, at(n).1, at(n + 1).0, at(n + 1).1)).collect()
}

/// The few characters that the picture needs.
fn strokes(c: u8) -> Vec<Stroke> {
    const W: f32 = GLYPH_WIDTH;
    const M: f32 = W / 2.0;
    let lines = |l: &[Stroke]| l.to_vec();
    let both = |mut a: Vec<Stroke>, b: Vec<Stroke>| {
        a.extend(b);
        a
    };
    match c {
        b'0' | b'O' => both(
            both(arc(M, M, M, M, 2.0, 4.0), arc(M, 1.0 - M, M, M, 0.0, 2.0)),
            lines(&[(0.0, M, 0.0, 1.0 - M), (W, M, W, 1.0 - M)]),
        ),
        b'1' => lines(&[(M, 0.0, M, 1.0), (M, 0.0, 0.08, 0.2)]),
        b'2' => both(arc(M, M, M, M, 2.0, 4.25), lines(&[(M + 0.92 * M, M + 0.38 * M, 0.0, 1.0), (0.0, 1.0, W, 1.0)])),
        b'3' => both(arc(M, 0.25, M * 0.92, 0.25, 2.3, 5.0), arc(M, 0.74, M, 0.26, 3.0, 5.75)),
        b'4' => lines(&[(M + 0.1, 0.0, 0.0, 0.68), (0.0, 0.68, W, 0.68), (M + 0.1, 0.36, M + 0.1, 1.0)]),
        b'5' => both(
            lines(&[(W - 0.04, 0.0, 0.06, 0.0), (0.06, 0.0, 0.03, 0.44)]),
            arc(M - 0.02, 0.68, M + 0.02, 0.32, 2.75, 5.7),
        ),
        b'6' => both(arc(M, 0.69, M, 0.31, 0.0, 4.0), lines(&[(0.02, 0.6, M + 0.1, 0.0)])),
        b'7' => lines(&[(0.0, 0.0, W, 0.0), (W, 0.0, 0.16, 1.0)]),
        b'8' => both(arc(M, 0.235, M * 0.88, 0.235, 0.0, 4.0), arc(M, 0.735, M, 0.265, 0.0, 4.0)),
        b'9' => both(arc(M, 0.31, M, 0.31, 0.0, 4.0), lines(&[(W - 0.02, 0.4, M - 0.1, 1.0)])),
        b':' => lines(&[(0.06, 0.3, 0.06, 0.3), (0.06, 0.78, 0.06, 0.78)]),
        b'.' => lines(&[(0.06, 1.0, 0.06, 1.0)]),
        b'A' => lines(&[(0.0, 1.0, M, 0.0), (M, 0.0, W, 1.0), (0.1, 0.66, W - 0.1, 0.66)]),
        b'C' => {
            both(arc(M, M, M, M, 2.0, 3.75), both(arc(M, 1.0 - M, M, M, 0.25, 2.0), lines(&[(0.0, M, 0.0, 1.0 - M)])))
        }
        b'D' => both(
            lines(&[(0.0, 0.0, 0.0, 1.0), (0.0, 0.0, 0.16, 0.0), (0.0, 1.0, 0.16, 1.0), (W, 0.4, W, 0.6)]),
            both(arc(0.16, 0.4, W - 0.16, 0.4, 3.0, 4.0), arc(0.16, 0.6, W - 0.16, 0.4, 0.0, 1.0)),
        ),
        b'E' => lines(&[(0.0, 0.0, 0.0, 1.0), (0.0, 0.0, W, 0.0), (0.0, 0.48, W * 0.85, 0.48), (0.0, 1.0, W, 1.0)]),
        b'F' => lines(&[(0.0, 0.0, 0.0, 1.0), (0.0, 0.0, W, 0.0), (0.0, 0.48, W * 0.85, 0.48)]),
        b'H' => lines(&[(0.0, 0.0, 0.0, 1.0), (W, 0.0, W, 1.0), (0.0, 0.5, W, 0.5)]),
        b'I' => lines(&[(0.04, 0.0, 0.04, 1.0)]),
        b'L' => lines(&[(0.0, 0.0, 0.0, 1.0), (0.0, 1.0, W, 1.0)]),
        b'M' => lines(&[(0.0, 1.0, 0.0, 0.0), (0.0, 0.0, M, 0.6), (M, 0.6, W, 0.0), (W, 0.0, W, 1.0)]),
        b'N' => lines(&[(0.0, 1.0, 0.0, 0.0), (0.0, 0.0, W, 1.0), (W, 1.0, W, 0.0)]),
        b'R' => both(
            lines(&[(0.0, 0.0, 0.0, 1.0), (0.0, 0.0, 0.3, 0.0), (0.0, 0.52, 0.3, 0.52), (0.28, 0.52, W, 1.0)]),
            arc(0.3, 0.26, W - 0.3, 0.26, 3.0, 5.0),
        ),
        b'S' => both(arc(M, 0.25, M * 0.95, 0.25, 1.0, 3.8), arc(M, 0.75, M, 0.25, -1.0, 1.8)),
        b'T' => lines(&[(0.0, 0.0, W, 0.0), (M, 0.0, M, 1.0)]),
        b'U' => both(lines(&[(0.0, 0.0, 0.0, 1.0 - M), (W, 0.0, W, 1.0 - M)]), arc(M, 1.0 - M, M, M, 0.0, 2.0)),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// As a reader does: the centre of each square.
    fn read(frame: &[u8]) -> Option<u64> {
        let side = WIDTH / 40;
        let bits: Vec<u64> =
            (0..34).map(|n| u64::from(frame[side * WIDTH + side / 2 + n * side + side / 2] > 126)).collect();
        let number = |bits: &[u64]| bits.iter().fold(0, |v, b| v << 1 | b);
        let (value, checksum) = (number(&bits[2..30]), number(&bits[30..]));
        let expected = (0..7).fold(0, |sum, nibble| sum ^ (value >> (4 * nibble)) & 0xf);
        (bits[..2] == [1, 0] && checksum == expected).then_some(value)
    }

    #[test]
    fn every_picture_carries_its_time() {
        let painter = Painter::new();
        let mut frame = vec![0; SIZE];
        for ms in [0u64, 1, 0x0fff_ffff, 1_795_000_000_123, 1_795_000_000_156] {
            painter.paint(&mut frame, ms, ms % 2 == 0);
            assert_eq!(read(&frame), Some(ms & 0x0fff_ffff));
        }
    }

    #[test]
    fn pictures_move() {
        let painter = Painter::new();
        let (mut a, mut b) = (vec![0; SIZE], vec![0; SIZE]);
        painter.paint(&mut a, 1_795_000_000_000, false);
        painter.paint(&mut b, 1_795_000_000_033, false);
        let below_the_bar_code = WIDTH * 64;
        let changed = a[below_the_bar_code..].iter().zip(&b[below_the_bar_code..]).filter(|(a, b)| a != b).count();
        assert!(changed > 1000, "{changed}");
    }

    #[test]
    fn the_clock_reads_utc() {
        assert_eq!(&clock_text(1_795_000_000_123), b"11:06:40.123");
        assert_eq!(&clock_text(86_399_999), b"23:59:59.999");
    }

    #[test]
    fn a_short_buffer_is_left_alone() {
        let mut short = vec![7; 100];
        Painter::new().paint(&mut short, 0, false);
        assert_eq!(short, vec![7; 100]);
    }
}
