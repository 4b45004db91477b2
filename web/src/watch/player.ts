// hls.js at its defaults, kept alive: the picture comes, and comes back, without anyone touching the page.

import Hls, { type ErrorData, type Level } from 'hls.js';
import { backoffMs, mediaErrorRemedy, networkErrorRemedy, remedy } from './recovery';

export type PlayerState = 'connecting' | 'waiting' | 'interrupted' | 'playing' | 'ended' | 'unsupported';

export interface Stats {
  /** Seconds behind the live edge, or null while unknown. */
  latency: number | null;
  targetLatency: number | null;
  /** Times the picture stood still since it first moved. */
  stalls: number;
  /** Index into `levels`, -1 while none plays. */
  level: number;
  levels: { index: number; width: number; height: number; bitrate: number; name: string }[];
  currentTime: number;
  /** Seconds ahead of the play position. */
  buffered: number;
  droppedFrames: number;
  partTarget: number | null;
  /** Seconds since capture by the playlist's PROGRAM-DATE-TIME, or null. */
  sinceCapture: number | null;
  auto: boolean;
  reopened: number;
}

const TICK_MS = 500;

export class Player {
  hls: Hls | null = null;
  state: PlayerState = 'connecting';
  private stalls = 0;
  private reopened = -1;
  private started = false;
  private attempt = 0;
  private timer = 0;
  private movedAt = performance.now();
  private lastTime = -1;
  private grewAt = performance.now();
  private edge = -1;
  private lastSn = -1;
  private jumped = false;
  private mediaErrorAt: number | null = null;
  /** Since the programme ended: whether the playlist was gone meanwhile, so that what comes next is a new one. */
  private goneSinceEnd = false;

  constructor(
    private readonly video: HTMLVideoElement,
    private url: string,
    private readonly onChange: () => void,
    /** The server lets this path watch no longer. */
    private readonly onRefused: () => void,
  ) {
    video.addEventListener('playing', () => {
      this.started = true;
      this.movedAt = performance.now();
      this.set('playing');
    });
    video.addEventListener('waiting', () => {
      // The picture standing still by itself; a seek or a pause is somebody's wish.
      if (this.started && !video.seeking && !video.paused) this.stalls++;
    });
    video.addEventListener('ended', () => this.end());
    setInterval(() => this.tick(), TICK_MS);
    if (Hls.isSupported()) this.open();
    else if (video.canPlayType('application/vnd.apple.mpegurl') !== '') this.openNative();
    else this.set('unsupported');
  }

  play(): void {
    this.movedAt = performance.now();
    // Refused until the person touches the page: the big button is there for that.
    void this.video.play().catch(() => this.onChange());
  }

  goLive(): void {
    const position = this.hls?.liveSyncPosition ?? this.seekableEnd();
    if (position !== null) this.video.currentTime = position;
    this.play();
  }

  /** Goes on with another path of the same channel. */
  moveTo(url: string): void {
    this.url = url;
    if (this.hls) this.open();
    else this.openNative();
  }

  /** Starts anew from the multivariant playlist. */
  open(): void {
    clearTimeout(this.timer);
    this.hls?.destroy();
    this.reopened++;
    this.edge = -1;
    this.lastSn = -1;
    this.jumped = false;
    this.movedAt = performance.now();
    this.grewAt = performance.now();
    // fMP4 passes through as it is, so there is no transmuxing that a worker could take off this thread.
    const hls = new Hls();
    this.hls = hls;
    hls.on(Hls.Events.MANIFEST_PARSED, () => {
      this.play();
      this.onChange();
    });
    hls.on(Hls.Events.LEVEL_LOADED, (_event, { details }) => {
      // Numbers never go back while the server lives. When they do it was started anew, and hls.js would wait for
      // segments that come hours later.
      if (details.endSN < this.lastSn - 3) return this.later(() => this.open(), 0);
      this.lastSn = Math.max(this.lastSn, details.endSN);
      if (details.edge > this.edge || !details.live) this.grewAt = performance.now();
      this.edge = Math.max(this.edge, details.edge);
    });
    hls.on(Hls.Events.FRAG_BUFFERED, () => {
      this.attempt = 0;
    });
    for (const event of [
      Hls.Events.LEVEL_SWITCHED,
      Hls.Events.AUDIO_TRACKS_UPDATED,
      Hls.Events.AUDIO_TRACK_SWITCHED,
      Hls.Events.LEVELS_UPDATED,
    ] as const)
      hls.on(event, () => this.onChange());
    hls.on(Hls.Events.ERROR, (_event, data) => this.onError(data));
    hls.loadSource(this.url);
    hls.attachMedia(this.video);
  }

  stats(): Stats {
    const { hls, video } = this;
    const details = hls?.latestLevelDetails ?? null;
    const date = hls?.playingDate ?? null;
    const known = hls !== null && details !== null && video.readyState > 0;
    return {
      latency: known && hls.latency > 0 ? hls.latency : null,
      targetLatency: hls?.targetLatency ?? null,
      stalls: this.stalls,
      level: hls?.currentLevel ?? -1,
      levels: (hls?.levels ?? []).map((level, index) => ({
        index,
        width: level.width,
        height: level.height,
        bitrate: level.bitrate,
        name: levelName(level, hls?.levels ?? []),
      })),
      currentTime: video.currentTime,
      buffered: this.ahead(),
      droppedFrames: video.getVideoPlaybackQuality().droppedVideoFrames,
      partTarget: details?.partTarget || null,
      sinceCapture: date ? (Date.now() - date.getTime()) / 1000 : null,
      auto: hls?.autoLevelEnabled ?? true,
      reopened: this.reopened,
    };
  }

  private onError(data: ErrorData): void {
    if (!data.fatal) return;
    if (data.type === Hls.ErrorTypes.MEDIA_ERROR) {
      const what = mediaErrorRemedy(performance.now(), this.mediaErrorAt);
      this.mediaErrorAt = performance.now();
      if (what === 'recover') this.hls?.recoverMediaError();
      else this.retry(() => this.open());
      return;
    }
    this.set(this.started ? 'interrupted' : 'waiting');
    if (data.response?.code === 403) return this.onRefused();
    const levelsKnown = (this.hls?.levels.length ?? 0) > 0;
    if (networkErrorRemedy(levelsKnown, data.response?.code) === 'reopen') this.retry(() => this.open());
    else this.retry(() => this.hls?.startLoad());
  }

  private retry(again: () => void): void {
    this.later(again, backoffMs(this.attempt++, Math.random()));
  }

  private later(again: () => void, ms: number): void {
    clearTimeout(this.timer);
    this.timer = window.setTimeout(again, ms);
  }

  private tick(): void {
    const now = performance.now();
    const { video } = this;
    if (video.currentTime !== this.lastTime || video.paused) {
      this.movedAt = now;
      if (video.currentTime !== this.lastTime) this.jumped = false;
      this.lastTime = video.currentTime;
    }
    if (this.started && this.hls && this.state !== 'ended') {
      switch (remedy({ now, movedAt: this.movedAt, grewAt: this.grewAt, jumped: this.jumped })) {
        case 'wait':
          this.set('interrupted');
          break;
        case 'jump':
          this.jumped = true;
          this.goLiveKeepingTime();
          break;
        case 'reopen':
          this.open();
          break;
        case 'none':
          if (this.state === 'interrupted' && now - this.movedAt < TICK_MS * 2 && !video.paused)
            this.set('playing');
      }
    }
    this.onChange();
  }

  /** As `goLive`, but the picture counts as standing until it really moves. */
  private goLiveKeepingTime(): void {
    const position = this.hls?.liveSyncPosition;
    if (typeof position === 'number' && position > this.video.currentTime) this.video.currentTime = position;
    this.hls?.startLoad();
  }

  private end(): void {
    this.set('ended');
    this.goneSinceEnd = false;
    this.later(() => void this.awaitNext(), 3000);
  }

  /** After the end the old playlist stands for a while: only one that comes after it was gone is a new programme. */
  private async awaitNext(): Promise<void> {
    try {
      const response = await fetch(this.url, { method: 'HEAD', cache: 'no-store' });
      if (response.ok && this.goneSinceEnd) {
        this.started = false;
        this.set('connecting');
        return this.hls ? this.open() : this.openNative();
      }
      if (!response.ok) this.goneSinceEnd = true;
    } catch {
      this.goneSinceEnd = true;
    }
    this.later(() => void this.awaitNext(), backoffMs(this.attempt++, Math.random()));
  }

  private openNative(): void {
    this.video.src = this.url;
    this.play();
    this.video.onerror = () => {
      this.set(this.started ? 'interrupted' : 'waiting');
      this.retry(() => this.openNative());
    };
  }

  private ahead(): number {
    const { buffered, currentTime } = this.video;
    for (let i = 0; i < buffered.length; i++)
      if (buffered.start(i) <= currentTime + 0.1 && currentTime <= buffered.end(i))
        return buffered.end(i) - currentTime;
    return 0;
  }

  private seekableEnd(): number | null {
    const { seekable } = this.video;
    return seekable.length > 0 ? seekable.end(seekable.length - 1) : null;
  }

  private set(state: PlayerState): void {
    if (this.state === state) return;
    this.state = state;
    this.onChange();
  }
}

/** `720p`, `720p60`, and the bit rate where two are of one size. */
export function levelName(
  level: Pick<Level, 'width' | 'height' | 'frameRate' | 'bitrate'>,
  all: readonly Pick<Level, 'height' | 'bitrate'>[],
): string {
  if (!level.height) return `${Math.round(level.bitrate / 1000)} kb/s`;
  const rate = level.frameRate > 45 ? String(Math.round(level.frameRate)) : '';
  const twins = new Set(all.filter((other) => other.height === level.height).map((other) => other.bitrate));
  const detail = twins.size > 1 ? ` · ${(level.bitrate / 1e6).toFixed(1)} Mb/s` : '';
  return `${level.height}p${rate}${detail}`;
}
