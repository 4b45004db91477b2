// Live pictures on the status page: only where someone can see them, few at a time, of the smallest rendition.

import type Hls from 'hls.js';
import { signedPath, type Channel } from '../api';
import { lowestVariant } from './model';

/** More decoders at once would make a wall of channels hard on a laptop. */
const AT_ONCE = 6;
const RETRY_MS = 6000;
const KEY = 'fishladder.pictures';

interface Slot {
  channel: Pick<Channel, 'name' | 'playlist'>;
  live: boolean;
  visible: boolean;
  onState: (state: 'playing' | 'loading' | 'paused') => void;
  stop: (() => void) | null;
  retryAt: number;
}

export class Previews {
  private readonly slots = new Map<HTMLVideoElement, Slot>();
  private readonly observer = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      const slot = this.slots.get(entry.target as HTMLVideoElement);
      if (slot) slot.visible = entry.isIntersecting;
    }
    this.reconcile();
  });

  constructor() {
    document.addEventListener('visibilitychange', () => this.reconcile());
  }

  /** Off by default for who asked for less motion. */
  get enabled(): boolean {
    const stored = localStorage.getItem(KEY);
    return stored === null ? !matchMedia('(prefers-reduced-motion: reduce)').matches : stored === 'on';
  }

  set enabled(on: boolean) {
    localStorage.setItem(KEY, on ? 'on' : 'off');
    this.reconcile();
  }

  add(video: HTMLVideoElement, channel: Slot['channel'], onState: Slot['onState']): void {
    this.slots.set(video, { channel, live: false, visible: false, onState, stop: null, retryAt: 0 });
    this.observer.observe(video);
  }

  setLive(video: HTMLVideoElement, live: boolean): void {
    const slot = this.slots.get(video);
    if (slot) slot.live = live;
  }

  remove(video: HTMLVideoElement): void {
    this.observer.unobserve(video);
    this.slots.get(video)?.stop?.();
    this.slots.delete(video);
  }

  /** Starts and stops pictures to fit what is visible now; called after each poll and on every change. */
  reconcile(): void {
    const inOrder = [...this.slots].sort(([a], [b]) =>
      a.compareDocumentPosition(b) & Node.DOCUMENT_POSITION_FOLLOWING ? -1 : 1,
    );
    let free = this.enabled && !document.hidden ? AT_ONCE : 0;
    for (const [video, slot] of inOrder) {
      const wanted = slot.live && slot.visible && free > 0;
      if (wanted) free--;
      if (!wanted && slot.stop) {
        slot.stop();
        slot.stop = null;
      }
      if (!wanted) slot.onState('paused');
      else if (!slot.stop && performance.now() >= slot.retryAt) this.start(video, slot);
      else if (slot.stop && video.paused && video.readyState > 2) void video.play().catch(() => undefined);
    }
  }

  private start(video: HTMLVideoElement, slot: Slot): void {
    const abort = new AbortController();
    let hls: Hls | null = null;
    const fail = () => {
      slot.stop?.();
      slot.stop = null;
      slot.retryAt = performance.now() + RETRY_MS;
    };
    const playing = () => slot.onState('playing');
    video.addEventListener('playing', playing);
    slot.stop = () => {
      abort.abort();
      hls?.destroy();
      video.removeEventListener('playing', playing);
      video.removeAttribute('src');
      video.load();
    };
    slot.onState('loading');
    const open = async () => {
      const [{ default: Player }, response] = await Promise.all([
        import('hls.js'),
        fetchPlaylist(slot.channel, abort.signal),
      ]);
      const variant = response.ok ? lowestVariant(await response.text(), response.url) : null;
      if (abort.signal.aborted) return;
      if (!variant || !Player.isSupported()) return fail();
      // The variant's own playlist: one small video and no audio. Whole segments, because parts would mean five
      // times the requests for a picture nobody times.
      hls = new Player({
        lowLatencyMode: false,
        maxBufferLength: 4,
        maxMaxBufferLength: 8,
        backBufferLength: 0,
        enableWorker: false,
      });
      hls.on(Player.Events.ERROR, (_event, data) => {
        if (data.fatal) fail();
      });
      hls.on(Player.Events.MANIFEST_PARSED, () => void video.play().catch(() => undefined));
      hls.loadSource(variant);
      hls.attachMedia(video);
    };
    open().catch(() => {
      if (!abort.signal.aborted) fail();
    });
  }
}

/** The multivariant playlist, signed where the server wants that. */
async function fetchPlaylist(channel: Slot['channel'], signal: AbortSignal): Promise<Response> {
  const response = await fetch(channel.playlist, { signal });
  return response.status === 403 ? fetch(await signedPath(channel.name, false), { signal }) : response;
}
