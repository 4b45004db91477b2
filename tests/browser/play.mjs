// Plays a channel in Chromium through the watch page and prints what was seen as JSON.
//
// Usage: play.mjs BASE CHANNEL OPTIONS, OPTIONS being a JSON object:
//   seconds     how long to look once the picture moves (default 10)
//   publish     {width, height, fps}: publish the test card by WHIP from a second Chromium
//   later       come when the channel has been live for so many seconds (default: as soon as it can be played)
//   height      look at the rendition of this height
//   switch      go through all renditions, looking at each for so many seconds
//   leave       look on until the player has left the rendition for another one by itself, at most so many seconds, then look again
//   restart     kill the publishing Chromium after the first look, publish anew after so many seconds, look again
//   kill        process to kill with SIGKILL after the first look, the server; look again once somebody started it anew
//   screenshot  file to save a picture of the watch page to

import { openBrowser, observe, playing, publish, select, settled, until, watch } from './lib.mjs';

const [base, channel, text = '{}'] = process.argv.slice(2);
const options = JSON.parse(text);
const seconds = options.seconds ?? 10;
const report = {};
const browsers = [];

async function open() {
  const browser = await openBrowser();
  browsers.push(browser);
  return browser;
}

/** Asks the server for `path` until its answer is as it should be. */
async function answered(what, path, isThere) {
  for (const begun = Date.now(); Date.now() - begun < 40_000; ) {
    const response = await fetch(`${base}${path}`);
    const text = await response.text();
    if (response.ok && isThere(text)) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error(`waited in vain for ${what}`);
}

/** The channel has been live for so many seconds. */
function liveFor(seconds) {
  return (text) => {
    const { state, since } = JSON.parse(text);
    return state === 'live' && Date.now() - Date.parse(since) >= seconds * 1000;
  };
}

try {
  // Both browsers start before anything is sent: a start takes all of a small machine for a second, and the picture of a
  // publisher that is starved of its processor stands still.
  const viewer = await open();
  const publisher = options.publish ? await open() : null;
  if (publisher) await publish(publisher, base, channel, options.publish);
  // Whoever opens the page earlier waits for the publisher, and its retries would be part of the figures.
  await answered('the multivariant playlist', `/live/${channel}/index.m3u8`, () => true);
  if (options.later) await answered('the channel to settle', `/api/v1/channels/${channel}`, liveFor(options.later));
  await watch(viewer, base, channel);
  await playing(viewer);
  report.levels = await viewer.page.evaluate(() => window.fishladder.hls.levels.map((l) => l.height));
  report.audioTracks = await viewer.page.evaluate(() => window.fishladder.hls.audioTracks.map((t) => t.name));
  report.targetLatency = await viewer.page.evaluate(() => window.fishladder.stats().targetLatency);
  report.version = await viewer.page.evaluate(() => window.fishladder.hls.constructor.version);
  if (options.height) await select(viewer, options.height);
  // The player looks for the live edge in its first seconds.
  await settled(viewer);
  report.first = await observe(viewer, seconds);

  if (options.switch) {
    report.switches = [];
    const heights = [...new Set(report.levels)];
    for (const height of [...heights, heights[0]]) {
      const watched = observe(viewer, options.switch);
      await select(viewer, height);
      report.switches.push({ to: height, ...(await watched) });
    }
  }

  if (options.leave) {
    const before = await viewer.page.evaluate(() => window.fishladder.stats().stalls);
    const { height } = report.first;
    const left = (from) => document.querySelector('video').videoHeight !== from;
    await until('another rendition', viewer.page, left, height, options.leave * 1000);
    report.second = await observe(viewer, seconds);
    report.stallsWhileLeaving = (await viewer.page.evaluate(() => window.fishladder.stats().stalls)) - before;
  }

  if (options.restart || options.kill) {
    const before = await viewer.page.evaluate(() => window.fishladder.stats());
    let restarted = Date.now();
    if (options.kill) {
      process.kill(options.kill, 'SIGKILL');
    } else {
      await publisher.kill();
      const again = await open();
      await new Promise((resolve) => setTimeout(resolve, options.restart * 1000));
      restarted = Date.now();
      await publish(again, base, channel, options.publish);
    }
    await until(
      'the new picture',
      viewer.page,
      (since) => window.probe.samples.slice(-10).every((s) => s.clock !== null && s.clock > since),
      restarted,
      60_000,
    );
    report.backAfter = (Date.now() - restarted) / 1000;
    await settled(viewer);
    report.smoothAfter = (Date.now() - restarted) / 1000;
    report.second = await observe(viewer, seconds);
    const after = await viewer.page.evaluate(() => window.fishladder.stats());
    report.reopened = (after.reopened ?? 0) - (before.reopened ?? 0);
    report.errors = await viewer.page.evaluate(() => window.probe.errors);
  }
  if (options.screenshot) await viewer.page.screenshot({ path: options.screenshot });
  report.complaints = viewer.complaints;
  console.log(JSON.stringify(report));
} catch (error) {
  console.error(error.stack);
  for (const browser of browsers) {
    console.error(browser.page.url(), browser.complaints.join('\n'));
    const said = await browser.page.evaluate(() => document.body.innerText.slice(0, 600)).catch(() => '(gone)');
    console.error(said);
  }
  process.exitCode = 1;
} finally {
  await Promise.all(browsers.map((b) => b.close().catch(() => {})));
}
