// What the watch page does about trouble, decided without a player or a clock.

/** Waits longer after each failure; `random` in 0..1 spreads the viewers of a channel that comes back. */
export function backoffMs(attempt: number, random: number): number {
  return Math.min(800 * 1.5 ** Math.min(attempt, 10), 4000) + random * 600;
}

/** What is known of the picture and the playlist at some moment; times in ms. */
export interface Progress {
  now: number;
  /** When the picture last moved, or playing was last wanted. */
  movedAt: number;
  /** When the playlist last grew. */
  grewAt: number;
  /** Whether jumping to the live edge was tried since the picture last moved. */
  jumped: boolean;
}

export type Remedy = 'none' | 'wait' | 'jump' | 'reopen';

/**
 * A standing picture over a growing playlist is the player's fault: jump to the live edge, then start anew.
 * Over a playlist that does not grow it is the publisher who is missing, and starting anew would only repeat the
 * last second of the programme again and again: wait.
 */
export function remedy(progress: Progress): Remedy {
  const standing = progress.now - progress.movedAt;
  if (standing < 2500) return 'none';
  if (progress.now - progress.grewAt > 5000) return 'wait';
  if (standing < 6000) return 'none';
  if (!progress.jumped) return 'jump';
  return standing > 12_000 ? 'reopen' : 'none';
}

/** Media errors: the first is mended in place, a second soon after starts anew. */
export function mediaErrorRemedy(now: number, lastAt: number | null): 'recover' | 'reopen' {
  return lastAt !== null && now - lastAt < 5000 ? 'reopen' : 'recover';
}

/**
 * A fatal network error while levels are known: the same player picks up where it broke, because starting anew over
 * a playlist that stands would show its last second again. Only where the server says that what was asked for does
 * not exist (another ladder, a server started anew) is the multivariant playlist read again.
 */
export function networkErrorRemedy(levelsKnown: boolean, status: number | undefined): 'resume' | 'reopen' {
  if (!levelsKnown) return 'reopen';
  const gone = status !== undefined && status >= 400 && status < 500 && status !== 408 && status !== 429;
  return gone ? 'reopen' : 'resume';
}
