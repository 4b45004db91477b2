// The test card: a moving picture with a large clock, the bar code that the watch page reads, and a beep each second.

import { write } from '../barcode';

// Chromium's way to make a track of frames without waiting for the page to be painted, so that it also runs in a
// background tab; other browsers capture the canvas.
declare class MediaStreamTrackGenerator extends MediaStreamTrack {
  constructor(init: { kind: 'video' });
  readonly writable: WritableStream<VideoFrame>;
}

export interface CardSpec {
  width: number;
  height: number;
  fps: number;
  title: string;
}

export class TestCard {
  readonly tracks: MediaStreamTrack[];
  /** Frames the track would not take in time. */
  skipped = 0;
  private readonly ticker = new Worker(new URL('./ticker.ts', import.meta.url), { type: 'module' });
  private readonly paint: CanvasRenderingContext2D;
  private readonly background: HTMLCanvasElement;
  private readonly audio = new AudioContext();
  private readonly beep: GainNode;
  private writer: WritableStreamDefaultWriter<VideoFrame> | null = null;
  private pending = 0;
  private frames = 0;
  private beepedFor = 0;

  constructor(private readonly spec: CardSpec) {
    const canvas = document.createElement('canvas');
    canvas.width = spec.width;
    canvas.height = spec.height;
    // Read back for every frame: a canvas in main memory is faster here than one on the GPU.
    const paint = canvas.getContext('2d', { alpha: false, willReadFrequently: true });
    if (!paint) throw new Error('this browser has no 2D canvas');
    this.paint = paint;
    this.background = backdrop(spec);
    this.draw(Date.now());

    const sound = this.audio.createMediaStreamDestination();
    const tone = this.audio.createOscillator();
    tone.frequency.value = 1000;
    this.beep = this.audio.createGain();
    this.beep.gain.value = 0;
    tone.connect(this.beep).connect(sound);
    tone.start();
    void this.audio.resume();

    const video = this.videoTrack(canvas);
    video.contentHint = 'motion';
    this.tracks = [video, ...sound.stream.getAudioTracks()];
    this.ticker.onmessage = () => this.tick();
    this.ticker.postMessage(spec.fps);
  }

  /** Browsers start sound only after someone touched the page. */
  get silent(): boolean {
    return this.audio.state === 'suspended';
  }

  resume(): void {
    void this.audio.resume();
  }

  stop(): void {
    this.ticker.terminate();
    void this.writer?.close().catch(() => undefined);
    for (const track of this.tracks) track.stop();
    void this.audio.close();
  }

  private videoTrack(canvas: HTMLCanvasElement): MediaStreamTrack {
    if ('MediaStreamTrackGenerator' in globalThis && 'VideoFrame' in globalThis) {
      const generator = new MediaStreamTrackGenerator({ kind: 'video' });
      this.writer = generator.writable.getWriter();
      return generator;
    }
    const [track] = canvas.captureStream(this.spec.fps).getVideoTracks();
    if (!track) throw new Error('this browser cannot capture a canvas');
    return track;
  }

  private tick(): void {
    const now = Date.now();
    this.draw(now);
    this.scheduleBeep(now);
    const { writer } = this;
    if (!writer) return;
    if (this.pending > 1) {
      this.skipped++;
      return;
    }
    const frame = new VideoFrame(this.paint.canvas, { timestamp: Math.round(performance.now() * 1000) });
    this.pending++;
    writer
      .write(frame)
      .catch(() => frame.close())
      .finally(() => this.pending--);
  }

  /** At each full second, together with the flash in the picture. */
  private scheduleBeep(now: number): void {
    const second = Math.ceil(now / 1000) * 1000;
    if (second === this.beepedFor || second - now > 200) return;
    this.beepedFor = second;
    const at = this.audio.currentTime + (second - now) / 1000;
    this.beep.gain.setValueAtTime(0.25, at);
    this.beep.gain.setValueAtTime(0, at + 0.08);
  }

  private draw(now: number): void {
    const { paint, spec } = this;
    const { width: w, height: h } = spec;
    paint.drawImage(this.background, 0, 0);

    // A disc that crosses the picture every four seconds shows dropped frames and tearing at a glance.
    const phase = (now % 4000) / 4000;
    const x = w * (0.08 + 0.84 * (phase < 0.5 ? 2 * phase : 2 - 2 * phase));
    paint.fillStyle = now % 1000 < 100 ? '#ffffff' : '#f2b84b';
    paint.beginPath();
    paint.arc(x, h * 0.79, h * 0.045, 0, 2 * Math.PI);
    paint.fill();

    const time = new Date(now);
    const two = (n: number) => String(n).padStart(2, '0');
    const clock = `${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}`;
    paint.fillStyle = '#ffffff';
    paint.textAlign = 'left';
    paint.textBaseline = 'alphabetic';
    paint.font = `700 ${Math.round(h * 0.2)}px ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace`;
    const width = paint.measureText('00:00:00').width;
    const left = (w - width * 1.26) / 2;
    paint.fillText(clock, left, h * 0.56);
    paint.font = `500 ${Math.round(h * 0.1)}px ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace`;
    paint.fillStyle = '#9fe3e0';
    paint.fillText(`.${String(now % 1000).padStart(3, '0')}`, left + width, h * 0.56);

    paint.font = `500 ${Math.round(h * 0.036)}px system-ui, 'DejaVu Sans', sans-serif`;
    paint.textAlign = 'right';
    paint.fillText(String(this.frames++), w * 0.95, h * 0.93);
    write(paint, w, now);
  }
}

/** What does not move, painted once. */
function backdrop({ width: w, height: h, fps, title }: CardSpec): HTMLCanvasElement {
  const canvas = document.createElement('canvas');
  canvas.width = w;
  canvas.height = h;
  const paint = canvas.getContext('2d', { alpha: false });
  if (!paint) return canvas;
  const water = paint.createLinearGradient(0, 0, 0, h);
  water.addColorStop(0, '#0f3d47');
  water.addColorStop(1, '#0a2229');
  paint.fillStyle = water;
  paint.fillRect(0, 0, w, h);
  // The ladder of the logo, large and faint.
  paint.strokeStyle = 'rgb(127 224 220 / 0.16)';
  paint.lineWidth = h * 0.02;
  paint.beginPath();
  for (let i = 0; i <= 8; i++) {
    paint.lineTo((w * i) / 8, h * (0.98 - i * 0.08));
    paint.lineTo((w * (i + 1)) / 8, h * (0.98 - i * 0.08));
  }
  paint.stroke();
  ['#c8c8c8', '#c8c800', '#00c8c8', '#00c800', '#c800c8', '#c80000', '#0000c8'].forEach((colour, i) => {
    paint.fillStyle = colour;
    paint.fillRect(Math.round((w * i) / 7), Math.round(h * 0.14), Math.ceil(w / 7), Math.round(h * 0.1));
  });
  paint.fillStyle = 'rgb(255 255 255 / 0.25)';
  paint.fillRect(w * 0.08, h * 0.787, w * 0.84, Math.max(2, h * 0.006));
  paint.fillStyle = '#9fe3e0';
  paint.font = `600 ${Math.round(h * 0.042)}px system-ui, 'DejaVu Sans', sans-serif`;
  paint.fillText(title, w * 0.05, h * 0.93, w * 0.45);
  paint.font = `500 ${Math.round(h * 0.036)}px system-ui, 'DejaVu Sans', sans-serif`;
  paint.textAlign = 'center';
  paint.fillText(`${w}×${h}  ${fps} fps`, w * 0.62, h * 0.93);
  return canvas;
}
