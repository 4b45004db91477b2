// Where the picture and the sound come from, and plain words for when they don't.

import { TestCard } from './testcard';

export type Kind = 'camera' | 'screen' | 'card';

export interface Wish {
  kind: Kind;
  width: number;
  height: number;
  fps: number;
  /** A device id, `default`, or `none`. */
  microphone: string;
  /** A device id, or empty for any. */
  camera: string;
  title: string;
}

export interface Capture {
  tracks: MediaStreamTrack[];
  card: TestCard | null;
  stop(): void;
}

export async function capture(wish: Wish): Promise<Capture> {
  if (wish.kind === 'card') {
    const card = new TestCard(wish);
    const tracks =
      wish.microphone === 'none' ? card.tracks.filter((track) => track.kind === 'video') : card.tracks;
    return { tracks, card, stop: () => card.stop() };
  }
  // Not there without TLS, except on this machine.
  if (!navigator.mediaDevices) throw new DOMException('', 'SecurityError');
  const size = {
    width: { ideal: wish.width },
    height: { ideal: wish.height },
    frameRate: { ideal: wish.fps, max: wish.fps },
  };
  const voice =
    wish.microphone === 'none'
      ? false
      : wish.microphone === 'default'
        ? true
        : { deviceId: { exact: wish.microphone } };
  let stream: MediaStream;
  if (wish.kind === 'camera') {
    const video = wish.camera ? { ...size, deviceId: { exact: wish.camera } } : size;
    stream = await navigator.mediaDevices.getUserMedia({ video, audio: voice });
  } else {
    stream = await navigator.mediaDevices.getDisplayMedia({ video: size, audio: true });
    if (stream.getAudioTracks().length === 0 && voice !== false) {
      // The screen without sound of its own: the microphone, and if that is refused, silence.
      const microphone = await navigator.mediaDevices.getUserMedia({ audio: voice }).catch(() => null);
      for (const track of microphone?.getAudioTracks() ?? []) stream.addTrack(track);
    }
  }
  for (const track of stream.getVideoTracks())
    track.contentHint = wish.kind === 'screen' ? 'detail' : 'motion';
  const tracks = stream.getTracks();
  return { tracks, card: null, stop: () => tracks.forEach((track) => track.stop()) };
}

export function captureError(error: unknown, kind: Kind): string {
  const what = kind === 'screen' ? 'the screen' : 'the camera or the microphone';
  const name = error instanceof DOMException ? error.name : '';
  switch (name) {
    case 'NotAllowedError':
      return `The browser was not allowed to use ${what}. Allow it in the address bar and try again.`;
    case 'NotFoundError':
    case 'OverconstrainedError':
      return kind === 'screen'
        ? 'There is no screen to share.'
        : 'There is no such camera or microphone on this computer.';
    case 'NotReadableError':
    case 'AbortError':
      return `Another program is using ${what}, or it does not answer.`;
    case 'SecurityError':
      return 'Browsers give camera and screen only to pages over HTTPS or on this machine. The test card works here too.';
    default:
      return `The browser could not open ${what}${error instanceof Error && error.message ? `: ${error.message}` : '.'}`;
  }
}
