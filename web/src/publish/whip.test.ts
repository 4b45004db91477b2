import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { WhipSession, candidateFragment, preferH264, startBitrate } from './whip';
import { Problem } from '../api';

vi.mock('../ui/token', () => ({}));

const LOCAL = `v=0\r\na=group:BUNDLE 0 1\r\nm=video 9 UDP/TLS/RTP/SAVPF 102\r\na=mid:0\r\na=ice-ufrag:abcd\r\na=ice-pwd:secretsecretsecretsecret\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:1\r\n`;
const ENDPOINT = 'http://h/whip/demo';

class FakePeer extends EventTarget {
  iceGatheringState = 'complete';
  localDescription: { sdp: string } | null = null;
  remote = '';
  closed = false;
  transceivers: { kind: string; preferred: string[]; init: RTCRtpTransceiverInit; degradation: unknown }[] =
    [];
  addTransceiver(track: { kind: string }, init: RTCRtpTransceiverInit) {
    const entry = { kind: track.kind, preferred: [] as string[], init, degradation: undefined as unknown };
    this.transceivers.push(entry);
    return {
      setCodecPreferences: (codecs: { mimeType: string }[]) => {
        entry.preferred = codecs.map((codec) => codec.mimeType);
      },
      sender: {
        getParameters: () => ({}),
        setParameters: (parameters: { degradationPreference: unknown }) => {
          entry.degradation = parameters.degradationPreference;
          return Promise.resolve();
        },
      },
    };
  }
  createOffer() {
    return Promise.resolve({ type: 'offer', sdp: LOCAL });
  }
  setLocalDescription(description: { sdp: string }) {
    this.localDescription = description;
    return Promise.resolve();
  }
  setRemoteDescription({ sdp }: { sdp: string }) {
    if (!sdp.startsWith('v=0')) return Promise.reject(new Error('bad answer'));
    this.remote = sdp;
    return Promise.resolve();
  }
  close() {
    this.closed = true;
  }
}

interface Call {
  method: string;
  url: string;
  headers: Headers;
  body: unknown;
  keepalive: boolean;
}
let calls: Call[] = [];
let answer: (call: Call) => Response;
let peer = new FakePeer();

const start = (token: string | null = null) =>
  WhipSession.start({
    endpoint: ENDPOINT,
    tracks: [{ kind: 'video' }, { kind: 'audio' }] as MediaStreamTrack[],
    token,
    maxBitrate: 3_000_000,
    maxFramerate: 30,
    peer: peer as unknown as RTCPeerConnection,
  });
const created = (headers: Record<string, string> = { Location: '/whip/demo/0a1b', ETag: '"e1"' }) =>
  new Response('v=0\r\n', { status: 201, headers });

beforeEach(() => {
  calls = [];
  peer = new FakePeer();
  answer = () => created();
  vi.stubGlobal('RTCRtpSender', {
    getCapabilities: () => ({ codecs: [{ mimeType: 'video/VP8' }, { mimeType: 'video/H264' }] }),
  });
  vi.stubGlobal('fetch', (url: string, init: RequestInit) => {
    const call = {
      method: init.method ?? 'GET',
      url,
      headers: new Headers(init.headers),
      body: init.body,
      keepalive: init.keepalive === true,
    };
    calls.push(call);
    return Promise.resolve(answer(call));
  });
});
afterEach(() => vi.unstubAllGlobals());

describe('WHIP client', () => {
  it('posts the offer, takes the answer and deletes the session once', async () => {
    const session = await start('t0k');
    expect(calls[0]).toMatchObject({ method: 'POST', url: ENDPOINT, body: LOCAL });
    expect(calls[0]?.headers.get('Content-Type')).toBe('application/sdp');
    expect(calls[0]?.headers.get('Authorization')).toBe('Bearer t0k');
    expect(peer.remote).toBe('v=0\r\n');
    expect(peer.transceivers[0]).toMatchObject({
      kind: 'video',
      preferred: ['video/H264', 'video/VP8'],
      degradation: 'maintain-resolution',
      init: { direction: 'sendonly', sendEncodings: [{ maxBitrate: 3_000_000, maxFramerate: 30 }] },
    });
    session.close();
    session.close();
    expect(calls.slice(1)).toMatchObject([
      { method: 'DELETE', url: 'http://h/whip/demo/0a1b', keepalive: true },
    ]);
    expect(peer.closed).toBe(true);
  });

  it('gives the server’s words on a refusal and leaves nothing open', async () => {
    answer = () =>
      new Response(JSON.stringify({ detail: 'In use since 02:14.' }), {
        status: 503,
        headers: { 'Retry-After': '7' },
      });
    const error = await start().catch((refused: unknown) => refused);
    expect(error).toBeInstanceOf(Problem);
    expect(error).toMatchObject({ status: 503, message: 'In use since 02:14.', retryAfter: 7 });
    expect(peer.closed).toBe(true);
    expect(calls).toHaveLength(1);
  });

  it('deletes the session whose answer it cannot use', async () => {
    answer = (call) =>
      call.method === 'POST'
        ? new Response('nonsense', { status: 201, headers: { Location: '/whip/demo/x' } })
        : new Response();
    await expect(start()).rejects.toThrow('bad answer');
    expect(calls.map((call) => call.method)).toEqual(['POST', 'DELETE']);
  });

  it('does not follow a Location to another origin with its token', async () => {
    answer = () => created({ Location: 'http://elsewhere/steal' });
    const session = await start('t0k');
    expect(session.resource).toBeNull();
    session.close();
    expect(calls).toHaveLength(1);
  });

  it('sends late candidates together, and none after the server said no', async () => {
    await start();
    const late = (candidate: string) =>
      peer.dispatchEvent(Object.assign(new Event('icecandidate'), { candidate: { candidate, sdpMid: '0' } }));
    answer = () => new Response('', { status: 405 });
    late('candidate:1 1 udp 1 127.0.0.1 4000 typ host');
    late('candidate:2 1 udp 1 127.0.0.1 4001 typ host');
    await vi.waitFor(() => expect(calls).toHaveLength(2));
    expect(calls[1]?.method).toBe('PATCH');
    expect(calls[1]?.headers.get('If-Match')).toBe('"e1"');
    expect(String(calls[1]?.body).match(/a=candidate/g)).toHaveLength(2);
    await vi.waitFor(() => undefined);
    late('candidate:3 1 udp 1 127.0.0.1 4002 typ host');
    await Promise.resolve();
    expect(calls).toHaveLength(2);
  });
});

describe('SDP helpers', () => {
  it('puts H.264 first, packetization mode 1 before 0', () => {
    const codec = (mimeType: string, sdpFmtpLine = '') => ({ mimeType, sdpFmtpLine });
    const list = [
      codec('video/VP8'),
      codec('video/H264', 'packetization-mode=0'),
      codec('video/rtx'),
      codec('video/H264', 'level-asymmetry-allowed=1;packetization-mode=1'),
    ];
    expect(preferH264(list)).toEqual([list[3], list[1], list[0], list[2]]);
    expect(preferH264([])).toEqual([]);
  });

  it('writes a fragment with credentials and the candidates under their media line', () => {
    const fragment = candidateFragment(LOCAL, [
      { candidate: 'candidate:9 1 udp 1 ::1 5 typ host', sdpMid: '1' },
    ]);
    expect(fragment).toBe(
      'a=ice-ufrag:abcd\r\na=ice-pwd:secretsecretsecretsecret\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:1\r\na=candidate:9 1 udp 1 ::1 5 typ host\r\n',
    );
    expect(candidateFragment(LOCAL, [])).toBeNull();
    expect(candidateFragment('', [{ candidate: 'candidate:9', sdpMid: '0' }])).toBeNull();
  });

  it('adds the start bit rate to H.264 alone', () => {
    const sdp =
      'a=rtpmap:96 VP8/90000\r\na=fmtp:96 x=1\r\na=rtpmap:102 H264/90000\r\na=rtcp-fb:102 nack\r\na=fmtp:102 packetization-mode=1\r\n';
    expect(startBitrate(sdp, 2100)).toBe(
      sdp.replace('packetization-mode=1', 'packetization-mode=1;x-google-start-bitrate=2100'),
    );
    expect(startBitrate('v=0\r\n', 2100)).toBe('v=0\r\n');
  });
});
