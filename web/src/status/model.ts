// What the status page shows of the channels, decided without a document: order, sentences, history.

import type { Channel, Level } from '../api';
import { formatBitrate, formatCodec, formatFrameRate, formatPercent } from '../ui/format';

export interface Overview {
  live: number;
  waiting: number;
  interrupted: number;
  viewers: number;
  /** Egress towards viewers can't be known here; this is what comes in. */
  ingest: number;
  problems: { channel: string; level: Level; text: string }[];
}

export function overview(channels: readonly Channel[]): Overview {
  const count = (state: Channel['state']) => channels.filter((channel) => channel.state === state).length;
  return {
    live: count('live'),
    waiting: count('waiting') + count('starting'),
    interrupted: count('interrupted'),
    viewers: channels.reduce((sum, channel) => sum + channel.viewers, 0),
    ingest: channels.reduce((sum, channel) => sum + ingestBitrate(channel), 0),
    problems: byUrgency(channels).flatMap((channel) =>
      channel.messages
        .filter((message) => message.level !== 'info')
        .map((message) => ({ channel: channel.name, level: message.level, text: message.text })),
    ),
  };
}

export function ingestBitrate(channel: Channel): number {
  return (channel.source?.video?.bitrate ?? 0) + (channel.source?.audio?.bitrate ?? 0);
}

/** Problems first, then what is live, then the quiet ones; by name within each. */
export function byUrgency(channels: readonly Channel[]): Channel[] {
  return [...channels].sort((a, b) => urgency(a) - urgency(b) || a.name.localeCompare(b.name, 'en'));
}

function urgency(channel: Channel): number {
  const has = (level: Level) => channel.messages.some((message) => message.level === level);
  if (has('error')) return 0;
  if (channel.state === 'interrupted') return 1;
  if (has('warning')) return 2;
  return { live: 3, starting: 4, interrupted: 1, waiting: 5 }[channel.state];
}

export const STATE_WORDS: Record<Channel['state'], string> = {
  live: 'Live',
  starting: 'Starting',
  waiting: 'Waiting',
  interrupted: 'Interrupted',
};

/** What an operator reads where a picture would be. */
export function stateSentence(channel: Channel): string {
  const ended = channel.endReason ? ` Last time: ${endSentence(channel.endReason)}` : '';
  switch (channel.state) {
    case 'live':
      return '';
    case 'starting':
      return 'A publisher is here; the first picture follows.';
    case 'interrupted':
      return `The publisher went away and may come back.${ended}`;
    case 'waiting':
      return channel.sessions > 0 ? `Waiting for the publisher.${ended}` : 'No publisher has come yet.';
  }
}

export function endSentence(reason: string): string {
  const sentences: Record<string, string> = {
    closed: 'the publisher stopped.',
    timeout: 'nothing came for too long.',
    transport: 'the connection failed.',
    source_failed: 'the source refused or vanished.',
    unusable: 'the media could not be used.',
    replaced: 'another publisher took over.',
    removed: 'an operator removed or changed the channel.',
    shutdown: 'the server was shut down.',
    internal: 'a fault inside the server; its log has the details.',
  };
  return sentences[reason] ?? `${reason}.`;
}

export const KIND_WORDS: Record<string, string> = { rtp: 'RTP', rtsp: 'RTSP', whip: 'WHIP' };

/** Label and value pairs beside the picture, short enough for that column. An empty label continues the one above. */
export function sourceFacts(channel: Channel): [label: string, value: string][] {
  const source = channel.source;
  if (!source) return [];
  const facts: [string, string][] = [];
  const { video, audio } = source;
  if (video) {
    const size = video.width && video.height ? `${video.width}×${video.height}` : '';
    const rate = video.frameRate ? `${formatFrameRate(video.frameRate)} fps` : '';
    facts.push(['Video', [size, rate].filter(Boolean).join(', ') || '–'], ['', formatCodec(video.codec)]);
  }
  if (audio) {
    const rate = audio.sampleRate ? `${audio.sampleRate / 1000} kHz` : '';
    const layout = audio.channels === 1 ? 'mono' : audio.channels === 2 ? 'stereo' : '';
    facts.push(['Audio', [formatCodec(audio.codec), rate, layout].filter(Boolean).join(', ')]);
  } else if (video) {
    facts.push(['Audio', 'none']);
  }
  if (video || audio) facts.push(['Input', formatBitrate(ingestBitrate(channel))]);
  if (channel.encodeLagMs !== null) facts.push(['Encoding', `${channel.encodeLagMs} ms`]);
  if (source.packets > 0) facts.push(['Loss', formatPercent(source.lost, source.packets + source.lost)]);
  if (source.engineDropped > 0) facts.push(['Dropped', `${source.engineDropped}: encoder too slow`]);
  if (source.refused > 0) facts.push(['Refused', `${source.refused} bad units`]);
  return facts;
}

/** Five minutes of bit rates at a poll every 2 s; older points fall out. */
export const HISTORY = 150;

export class History {
  times: number[] = [];
  readonly series = new Map<string, (number | null)[]>();

  /** False while there is nothing but silence to draw. */
  anything(): boolean {
    return [...this.series.values()].some((list) => list.some((value) => value !== null && value > 0));
  }

  push(now: number, values: ReadonlyMap<string, number>): void {
    this.times.push(now);
    for (const id of values.keys()) {
      if (!this.series.has(id)) this.series.set(id, new Array<null>(this.times.length - 1).fill(null));
    }
    for (const [id, list] of this.series) list.push(values.get(id) ?? null);
    if (this.times.length > HISTORY) {
      this.times.shift();
      for (const list of this.series.values()) list.shift();
    }
    // A rendition that is gone from the whole window is forgotten, so that the map stays as small as the ladder.
    for (const [id, list] of this.series) if (list.every((value) => value === null)) this.series.delete(id);
  }
}

/** URI of the picture with the lowest BANDWIDTH in a multivariant playlist (RFC 8216bis, 4.4.6.2), or null. */
export function lowestVariant(playlist: string, base: string): string | null {
  let lowest: { bandwidth: number; uri: string } | null = null;
  let bandwidth: number | null = null;
  for (const line of playlist.split('\n').map((each) => each.trim())) {
    if (line.startsWith('#EXT-X-STREAM-INF:')) {
      // A variant of sound alone has no RESOLUTION.
      const picture = /[:,]RESOLUTION=\d/.test(line);
      bandwidth = picture ? Number(/[:,]BANDWIDTH=(\d+)/.exec(line)?.[1] ?? Number.NaN) : Number.NaN;
    } else if (line !== '' && !line.startsWith('#') && bandwidth !== null) {
      if (Number.isFinite(bandwidth) && bandwidth < (lowest?.bandwidth ?? Infinity))
        lowest = { bandwidth, uri: line };
      bandwidth = null;
    }
  }
  return lowest ? new URL(lowest.uri, base).href : null;
}
