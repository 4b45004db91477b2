// Keeps one picture going to one channel: starts, starts again when the connection breaks, stops.

import { Problem } from '../api';
import { forgetToken, requestToken, storedToken } from '../ui/token';
import { summarize, type Sample, type SendStats } from './stats';
import { WhipSession } from './whip';

export type PublishState =
  | { name: 'idle' }
  | { name: 'connecting' }
  | { name: 'live'; since: number }
  | { name: 'retrying'; reason: string; at: number }
  | { name: 'failed'; reason: string };

export interface Rates {
  maxBitrate: number;
  maxFramerate: number;
}

/** ICE may say `disconnected` for a moment and recover by itself. */
const DISCONNECTED_MS = 4000;

export class Publisher {
  state: PublishState = { name: 'idle' };
  stats: SendStats | null = null;
  private session: WhipSession | null = null;
  private abort = new AbortController();
  private attempt = 0;
  private timer = 0;
  private poll = 0;
  private sample: Sample | null = null;
  private tracks: readonly MediaStreamTrack[] = [];
  private rates: Rates = { maxBitrate: 0, maxFramerate: 0 };

  constructor(
    private readonly endpoint: string,
    private readonly onChange: () => void,
  ) {
    // `pagehide` is the last event that every browser sends; the DELETE outlives the page.
    addEventListener('pagehide', () => this.stop());
  }

  get running(): boolean {
    return this.state.name !== 'idle' && this.state.name !== 'failed';
  }

  get peer(): RTCPeerConnection | null {
    return this.session?.peer ?? null;
  }

  start(tracks: readonly MediaStreamTrack[], rates: Rates): void {
    this.stop();
    this.tracks = tracks;
    this.rates = rates;
    this.attempt = 0;
    this.abort = new AbortController();
    void this.connect(this.abort.signal);
  }

  stop(): void {
    this.abort.abort();
    this.leave();
    this.set({ name: 'idle' });
  }

  private async connect(signal: AbortSignal): Promise<void> {
    this.leave();
    this.set({ name: 'connecting' });
    const token = storedToken('publish');
    try {
      const session = await WhipSession.start({
        endpoint: this.endpoint,
        tracks: this.tracks,
        token,
        signal,
        ...this.rates,
      });
      if (signal.aborted) return session.close();
      this.session = session;
      this.watch(session, signal);
    } catch (error) {
      if (!signal.aborted) await this.refused(error, token, signal);
    }
  }

  private async refused(error: unknown, token: string | null, signal: AbortSignal): Promise<void> {
    if (!(error instanceof Problem)) {
      // fetch rejects with a TypeError; anything else is the browser's WebRTC.
      const reason =
        error instanceof TypeError
          ? 'The server cannot be reached.'
          : `The browser could not set up the connection: ${error instanceof Error ? error.message : String(error)}`;
      return error instanceof TypeError
        ? this.retry(reason, null, signal)
        : this.set({ name: 'failed', reason });
    }
    if (error.status === 401) {
      if (token) forgetToken('publish', token);
      const given = await requestToken('publish', token !== null);
      if (signal.aborted) return;
      if (given !== null) return this.connect(signal);
      return this.set({ name: 'failed', reason: error.message });
    }
    // Busy, starting or overloaded passes; every other refusal is ours to mend first.
    const passes = error.status === 409 || error.status === 429 || error.status >= 500;
    if (passes) this.retry(error.message, error.retryAfter, signal);
    else this.set({ name: 'failed', reason: error.message });
  }

  private watch(session: WhipSession, signal: AbortSignal): void {
    const { peer } = session;
    let broken = 0;
    const check = () => {
      if (signal.aborted || this.session !== session) return;
      clearTimeout(broken);
      const state = peer.connectionState;
      if (state === 'connected' && this.state.name !== 'live') {
        this.attempt = 0;
        this.set({ name: 'live', since: Date.now() });
      } else if (state === 'failed') {
        this.retry('The connection to the server broke.', null, signal);
      } else if (state === 'disconnected') {
        broken = window.setTimeout(() => {
          if (this.session === session) this.retry('The connection to the server broke.', null, signal);
        }, DISCONNECTED_MS);
      }
    };
    peer.addEventListener('connectionstatechange', check);
    check();
    this.poll = window.setInterval(() => void this.measure(session), 1000);
  }

  private async measure(session: WhipSession): Promise<void> {
    const reports = await session.peer.getStats().catch(() => null);
    if (!reports || this.session !== session) return;
    const list: Record<string, unknown>[] = [];
    reports.forEach((report: Record<string, unknown>) => list.push(report));
    this.stats = summarize(list, performance.now(), this.sample);
    this.sample = this.stats?.sample ?? null;
    this.onChange();
  }

  private retry(reason: string, retryAfter: number | null, signal: AbortSignal): void {
    this.leave();
    const wait = Math.max(Math.min(1000 * 1.6 ** this.attempt++, 8000), Math.min(retryAfter ?? 0, 30) * 1000);
    this.set({ name: 'retrying', reason, at: Date.now() + wait });
    this.timer = window.setTimeout(() => void this.connect(signal), wait);
  }

  private leave(): void {
    clearTimeout(this.timer);
    clearInterval(this.poll);
    this.session?.close();
    this.session = null;
    this.sample = null;
    this.stats = null;
  }

  private set(state: PublishState): void {
    this.state = state;
    this.onChange();
  }
}
