// Chromium for the end-to-end tests: a publisher and a viewer, each in a browser of its own, as with real people.

import { existsSync } from 'node:fs';
import { chromium } from 'playwright-core';

const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--no-first-run',
  '--autoplay-policy=no-user-gesture-required',
  '--use-fake-ui-for-media-stream',
  '--use-fake-device-for-media-stream',
  // A page that nobody looks at must send and play at full rate all the same.
  '--disable-background-timer-throttling',
  '--disable-renderer-backgrounding',
  '--disable-backgrounding-occluded-windows',
];

const EXECUTABLE = process.env.FISHLADDER_CHROMIUM ?? '/usr/bin/chromium';

/** A browser process with one page, and a record of everything that the page complained about. */
export async function openBrowser() {
  if (!existsSync(EXECUTABLE)) throw new Error(`${EXECUTABLE} is missing`);
  const server = await chromium.launchServer({ executablePath: EXECUTABLE, args: FLAGS, headless: true });
  const browser = await chromium.connect(server.wsEndpoint());
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 } });
  const page = await context.newPage();
  const complaints = [];
  page.on('pageerror', (error) => complaints.push(`page error: ${error.message}`));
  page.on('console', (message) => {
    if (message.type() === 'error') complaints.push(`console: ${message.text()}`);
  });
  return {
    page,
    complaints,
    /** As a power cut would: no unload handler runs, no DELETE is sent. */
    kill: () => server.kill(),
    close: () => server.close(),
  };
}

/** Waits for a state in the page: `look` runs there. */
export async function until(what, page, look, argument, timeout = 40_000) {
  try {
    await page.waitForFunction(look, argument, { timeout, polling: 100 });
  } catch (error) {
    const state = await page.evaluate(() => document.body.innerText.slice(0, 600)).catch(() => '');
    throw new Error(`waited in vain for ${what}: ${error.message.split('\n')[0]}\nthe page says: ${state}`);
  }
}

/** Opens the publish page, which starts by itself, and waits until it says that it sends. */
export async function publish(browser, base, channel, { width = 640, height = 360, fps = 30 } = {}) {
  const query = `test-card=1&start=1&width=${width}&height=${height}&fps=${fps}`;
  await browser.page.goto(`${base}/publish/${channel}?${query}`);
}

/** Opens the watch page and begins to record what the viewer sees. */
export async function watch(browser, base, channel) {
  await browser.page.goto(`${base}/watch/${channel}`);
  await until('the watch page', browser.page, () => typeof window.fishladder?.stats === 'function');
  await browser.page.evaluate(record);
}

/** Waits until the picture moves. */
export async function playing(browser, timeout) {
  await until(
    'a moving picture',
    browser.page,
    () => window.probe.samples.length > 5 && window.probe.samples.slice(-5).every((s, i, all) => i === 0 || s.at > all[i - 1].at),
    undefined,
    timeout,
  );
}

/** Waits until the picture has moved at the speed of time for three seconds on end: the player has found its place. */
export async function settled(browser) {
  const smooth = () => {
    const last = window.probe.samples.slice(-30);
    if (last.length < 30) return false;
    const [from, to] = [last[0], last.at(-1)];
    const moved = (key, unit) => Math.abs((to[key] - from[key]) / unit - (to.now - from.now) / 1000) < 0.15;
    return last.every((s) => s.clock !== null) && moved('at', 1) && moved('clock', 1000);
  };
  await until('smooth playback', browser.page, smooth);
}

/** Samples for so many seconds and gives what was seen in that time. */
export async function observe(browser, seconds) {
  const { page } = browser;
  const from = await page.evaluate(() => window.probe.samples.length);
  const before = await page.evaluate(totals);
  const begun = await page.evaluate(() => performance.now());
  await until('the end of the observation', page, (end) => performance.now() >= end, begun + seconds * 1000, seconds * 1000 + 20_000);
  const after = await page.evaluate(totals);
  const samples = await page.evaluate((n) => window.probe.samples.slice(n), from);
  return summarize(samples, before, after);
}

/** Selects the rendition of this height, with the audio group that plays, and waits until it is on the screen. */
export async function select(browser, height) {
  await browser.page.evaluate((h) => {
    const { hls } = window.fishladder;
    const codec = hls.levels[hls.loadLevel].audioCodec;
    hls.nextLevel = hls.levels.findIndex((level) => level.height === h && level.audioCodec === codec);
  }, height);
  await until(`pictures of ${height} lines`, browser.page, (h) => document.querySelector('video').videoHeight === h, height);
}

// Runs in the page: one sample each 100 ms of what is on the screen, and every error and jump of hls.js.
function record() {
  const probe = { samples: [], errors: [], heights: [] };
  window.probe = probe;
  let known = null;
  const ranges = (buffered) => Array.from({ length: buffered.length }, (_, i) => buffered.end(i));
  setInterval(() => {
    const { hls } = window.fishladder;
    if (hls && hls !== known) {
      known = hls;
      hls.on('hlsError', (_, data) =>
        probe.errors.push(`${data.fatal ? 'FATAL ' : ''}${data.details} ${data.response?.code ?? ''} ${data.error?.message ?? ''}`.trim()),
      );
    }
    const video = document.querySelector('video');
    if (!video) return;
    probe.samples.push({
      now: performance.now(),
      wall: Date.now(),
      at: video.currentTime,
      clock: window.fishladder.readClock(),
      // What lies behind may have holes from before the player found its place.
      holes: ranges(video.buffered).filter((end) => end > video.currentTime).length - 1,
      latency: window.fishladder.stats().latency,
      height: video.videoHeight,
    });
  }, 100);
}

// Runs in the page: counters that only grow.
function totals() {
  const video = document.querySelector('video');
  const quality = video.getVideoPlaybackQuality();
  return {
    stalls: window.fishladder.stats().stalls,
    errors: window.probe.errors.length,
    errorTexts: window.probe.errors,
    shown: quality.totalVideoFrames,
    dropped: quality.droppedVideoFrames,
    audioBytes: video.webkitAudioDecodedByteCount,
    now: performance.now(),
    at: video.currentTime,
  };
}

function summarize(samples, before, after) {
  const clocks = samples.filter((s) => s.clock !== null);
  const latencies = clocks.map((s) => s.wall - s.clock).sort((a, b) => a - b);
  const quantile = (q) => latencies[Math.min(latencies.length - 1, Math.floor(latencies.length * q))] ?? null;
  const steps = samples.slice(1).map((s, i) => s.at - samples[i].at - (s.now - samples[i].now) / 1000);
  const clockSteps = clocks.slice(1).map((s, i) => s.clock - clocks[i].clock);
  return {
    seconds: (after.now - before.now) / 1000,
    advanced: after.at - before.at,
    /** How far the picture ran behind or ahead of time between two looks, in seconds. */
    hang: Math.max(0, ...steps.map((s) => -s)),
    jump: Math.max(0, ...steps),
    stalls: after.stalls - before.stalls,
    errors: after.errorTexts.slice(before.errors),
    frames: after.shown - before.shown,
    dropped: after.dropped - before.dropped,
    audioBytes: after.audioBytes - before.audioBytes,
    holes: Math.max(0, ...samples.map((s) => s.holes)),
    /** As the player itself sees it, in seconds: it knows the playlist's dates, not the picture. */
    latency: samples.at(-1)?.latency ?? null,
    samples: samples.length,
    clocks: clocks.length,
    /** Both in ms of the clock burned into the picture. */
    clockAdvanced: clocks.length > 1 ? clocks.at(-1).clock - clocks[0].clock : 0,
    clockBack: Math.max(0, ...clockSteps.map((s) => -s)),
    p50: quantile(0.5),
    p95: quantile(0.95),
    height: samples.at(-1)?.height ?? 0,
  };
}
