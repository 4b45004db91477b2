// Reads the bar-coded clock from the frame on screen: glass to glass, measured in the page.

import { STRIP, read } from '../barcode';

let canvas: CanvasRenderingContext2D | null = null;

/** Capture time of the frame on screen in unix ms, or null where it carries none. */
export function readClock(video: HTMLVideoElement): number | null {
  const { videoWidth: width, videoHeight: height } = video;
  if (width === 0 || height === 0 || video.readyState < 2) return null;
  const rows = Math.min(height, Math.ceil(width * STRIP));
  canvas ??= document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  if (!canvas) return null;
  if (canvas.canvas.width !== width || canvas.canvas.height !== rows) {
    canvas.canvas.width = width;
    canvas.canvas.height = rows;
  }
  canvas.drawImage(video, 0, 0, width, rows, 0, 0, width, rows);
  return read(canvas.getImageData(0, 0, width, rows), Date.now());
}
