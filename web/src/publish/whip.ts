// A WHIP client (RFC 9725): one POST with the offer, PATCH for candidates that come late, DELETE at the end.

import { readProblem } from '../api';

export interface WhipOptions {
  /** `/whip/{channel}`, absolute. */
  endpoint: string;
  tracks: readonly MediaStreamTrack[];
  token: string | null;
  /** Bits a second for the picture. */
  maxBitrate: number;
  maxFramerate: number;
  peer?: RTCPeerConnection;
  signal?: AbortSignal;
}

/** Candidates of this machine take milliseconds; there is no STUN server to wait for. */
const GATHER_MS = 1000;

export class WhipSession {
  private candidates: RTCIceCandidate[] = [];
  private trickle = true;
  private closed = false;

  private constructor(
    readonly peer: RTCPeerConnection,
    /** Of the session at the server, from the Location header. */
    readonly resource: string | null,
    private readonly etag: string | null,
    private readonly token: string | null,
  ) {
    peer.addEventListener('icecandidate', ({ candidate }) => {
      if (candidate?.candidate) {
        if (this.candidates.length === 0) queueMicrotask(() => void this.sendCandidates());
        this.candidates.push(candidate);
      }
    });
  }

  /** Rejects with a `Problem` where the server refuses and with a `TypeError` where it can't be reached. */
  static async start(options: WhipOptions): Promise<WhipSession> {
    const peer = options.peer ?? new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
    try {
      await offer(peer, options);
      const response = await fetch(options.endpoint, {
        method: 'POST',
        headers: { 'Content-Type': 'application/sdp', ...bearer(options.token) },
        body: peer.localDescription?.sdp ?? '',
        signal: options.signal ?? null,
      });
      if (!response.ok) throw await readProblem(response);
      const resource = sameOrigin(response.headers.get('Location'), response.url || options.endpoint);
      const session = new WhipSession(peer, resource, response.headers.get('ETag'), options.token);
      try {
        const sdp = startBitrate(await response.text(), Math.round((options.maxBitrate / 1000) * 0.7));
        await peer.setRemoteDescription({ type: 'answer', sdp });
      } catch (error) {
        session.close();
        throw error;
      }
      return session;
    } catch (error) {
      peer.close();
      throw error;
    }
  }

  /** Ends the session here and, also while the page is being left, at the server. */
  close(): void {
    if (this.closed) return;
    this.closed = true;
    this.peer.close();
    if (this.resource === null) return;
    void fetch(this.resource, { method: 'DELETE', keepalive: true, headers: bearer(this.token) }).catch(
      () => undefined,
    );
  }

  private async sendCandidates(): Promise<void> {
    const late = this.candidates.splice(0);
    const fragment = candidateFragment(this.peer.localDescription?.sdp ?? '', late);
    if (this.closed || !this.trickle || this.resource === null || fragment === null) return;
    const response = await fetch(this.resource, {
      method: 'PATCH',
      headers: {
        'Content-Type': 'application/trickle-ice-sdpfrag',
        ...(this.etag === null ? {} : { 'If-Match': this.etag }),
        ...bearer(this.token),
      },
      body: fragment,
    }).catch(() => null);
    // RFC 9725, 4.3.1: a server without trickle says so once; the candidates in the offer have to do.
    if (response && !response.ok) this.trickle = false;
  }
}

async function offer(peer: RTCPeerConnection, options: WhipOptions): Promise<void> {
  for (const track of options.tracks) {
    const video = track.kind === 'video';
    const transceiver = peer.addTransceiver(track, {
      direction: 'sendonly',
      ...(video
        ? { sendEncodings: [{ maxBitrate: options.maxBitrate, maxFramerate: options.maxFramerate }] }
        : {}),
    });
    if (!video) continue;
    const codecs = RTCRtpSender.getCapabilities('video')?.codecs ?? [];
    transceiver.setCodecPreferences?.(preferH264(codecs));
    const parameters = transceiver.sender.getParameters();
    // A ladder is made of this picture: fewer frames a second for a moment hurt less than a new size, which costs a
    // new init segment and a discontinuity.
    parameters.degradationPreference = 'maintain-resolution';
    await transceiver.sender.setParameters(parameters).catch(() => undefined);
  }
  await peer.setLocalDescription(await peer.createOffer());
  await gathered(peer);
}

function gathered(peer: RTCPeerConnection): Promise<void> {
  if (peer.iceGatheringState === 'complete') return Promise.resolve();
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, GATHER_MS);
    peer.addEventListener('icegatheringstatechange', () => {
      if (peer.iceGatheringState !== 'complete') return;
      clearTimeout(timer);
      resolve();
    });
  });
}

type Codec = { mimeType: string; sdpFmtpLine?: string };

/** H.264 first, packetization mode 1 before 0; the order among the others stays. */
export function preferH264<C extends Codec>(codecs: readonly C[]): C[] {
  const rank = ({ mimeType, sdpFmtpLine = '' }: Codec) =>
    mimeType.toLowerCase() !== 'video/h264' ? 2 : sdpFmtpLine.includes('packetization-mode=1') ? 0 : 1;
  return [...codecs].sort((a, b) => rank(a) - rank(b));
}

/**
 * Chromium begins at 300 kb/s and takes many seconds to trust the network; this hint in the answer, which only it
 * reads, makes the first seconds watchable.
 */
export function startBitrate(answer: string, kbps: number): string {
  return answer.replace(
    /^a=rtpmap:(\d+) H264\/90000\r?\n(?:a=rtcp-fb:.*\r?\n)*a=fmtp:\1 [^\r\n]*/gim,
    (line) => `${line};x-google-start-bitrate=${kbps}`,
  );
}

/** The body of a PATCH (RFC 8840, 9): ICE credentials, and the candidates under their media lines. */
export function candidateFragment(
  local: string,
  candidates: readonly Pick<RTCIceCandidate, 'candidate' | 'sdpMid'>[],
): string | null {
  const ufrag = /^a=ice-ufrag:.*$/m.exec(local)?.[0].trim();
  const pwd = /^a=ice-pwd:.*$/m.exec(local)?.[0].trim();
  if (!ufrag || !pwd || candidates.length === 0) return null;
  const lines = [ufrag, pwd];
  for (const section of local.split(/^(?=m=)/m).slice(1)) {
    const mid = /^a=mid:(.*)$/m.exec(section)?.[1]?.trim();
    const own = candidates.filter(({ sdpMid }) => sdpMid === mid);
    const media = section.split(/\r?\n/, 1)[0];
    if (mid === undefined || own.length === 0 || media === undefined) continue;
    lines.push(media, `a=mid:${mid}`, ...own.map(({ candidate }) => `a=${candidate}`));
  }
  return lines.join('\r\n') + '\r\n';
}

/** A Location elsewhere would get our token: it is not followed. */
function sameOrigin(location: string | null, base: string): string | null {
  if (location === null) return null;
  const url = new URL(location, base);
  return url.origin === new URL(base).origin ? url.href : null;
}

function bearer(token: string | null): Record<string, string> {
  return token ? { Authorization: `Bearer ${token}` } : {};
}
