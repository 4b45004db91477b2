// What getStats() says about a publisher, as the few figures a person wants.

export interface Sample {
  at: number;
  bytes: number;
  frames: number;
}

export interface SendStats {
  bitrate: number;
  fps: number;
  width: number;
  height: number;
  codec: string;
  /** Seconds, or null before the first report. */
  rtt: number | null;
  /** Share of packets lost as the server reports it, or null. */
  loss: number | null;
  framesSent: number;
  keyFrames: number;
  nacks: number;
  plis: number;
  /** What holds the picture back, in plain words; empty when nothing does. */
  limit: string;
  sample: Sample;
}

type Report = Record<string, unknown> & { type?: unknown };

/** `before`: the sample of the last call, for rates. Null while no picture is being sent. */
export function summarize(reports: Iterable<Report>, now: number, before: Sample | null): SendStats | null {
  const byId = new Map<unknown, Report>();
  let video: Report | null = null;
  let remote: Report | null = null;
  let bytes = 0;
  let rtt: number | null = null;
  for (const report of reports) {
    byId.set(report['id'], report);
    if (report.type === 'outbound-rtp') {
      bytes += num(report['bytesSent']) + num(report['headerBytesSent']);
      if (report['kind'] === 'video') video = report;
    }
    if (report.type === 'remote-inbound-rtp' && report['kind'] === 'video') remote = report;
    if (report.type === 'candidate-pair' && report['nominated'] === true && report['state'] === 'succeeded')
      rtt = numOrNull(report['currentRoundTripTime']);
  }
  if (!video) return null;
  const sample = { at: now, bytes, frames: num(video['framesSent']) };
  const seconds = before ? (now - before.at) / 1000 : 0;
  const rate = (to: number, from: number | undefined) =>
    seconds > 0 && from !== undefined ? Math.max(0, (to - from) / seconds) : 0;
  return {
    bitrate: rate(sample.bytes, before?.bytes) * 8,
    fps: rate(sample.frames, before?.frames),
    width: num(video['frameWidth']),
    height: num(video['frameHeight']),
    codec: String(byId.get(video['codecId'])?.['mimeType'] ?? '').replace('video/', ''),
    rtt: rtt ?? numOrNull(remote?.['roundTripTime']),
    loss: numOrNull(remote?.['fractionLost']),
    framesSent: sample.frames,
    keyFrames: num(video['keyFramesEncoded']),
    nacks: num(video['nackCount']),
    plis: num(video['pliCount']),
    limit:
      { cpu: 'this computer is too slow', bandwidth: 'the network is too slow', other: 'the encoder' }[
        String(video['qualityLimitationReason'])
      ] ?? '',
    sample,
  };
}

function num(value: unknown): number {
  return numOrNull(value) ?? 0;
}
function numOrNull(value: unknown): number | null {
  return typeof value === 'number' && Number.isFinite(value) ? value : null;
}
