// Watches a channel that wants signed paths, as a viewer with a link and as an operator, and prints what was seen as JSON.
//
// Usage: signed.mjs BASE CHANNEL TOKEN ADMIN_TOKEN [FILE], FILE being for a picture of the status page.

import { openBrowser, playing, until, watch } from './lib.mjs';

const [base, channel, token, admin, screenshot] = process.argv.slice(2);
const report = {};
const browser = await openBrowser();
const { page } = browser;

try {
  // A link whose token was cut off or altered is refused with a sentence, and nobody is asked for the admin token.
  const wrong = token.slice(0, -1) + (token.endsWith('A') ? 'B' : 'A');
  await page.goto(`${base}/watch/${channel}#~${wrong}`);
  await page.waitForSelector('.message.error');
  report.refused = await page.textContent('.message.error');
  report.dialogs = await page.locator('dialog[open]').count();
  // The right link in the same tab: only what is behind # changes.
  await watch(browser, base, `${channel}#~${token}`);
  await playing(browser);
  report.viewer = await page.evaluate(() => window.fishladder.hls.url);

  // Without a link the page asks for the admin token and signs for itself.
  await page.goto('about:blank');
  await page.goto(`${base}/watch/${channel}`);
  await page.fill('#token', admin);
  await page.keyboard.press('Enter');
  // The tab has kept the token once the page has gone on with it.
  await until('the watch page with the token', page, () => typeof window.fishladder?.stats === 'function');
  await watch(browser, base, channel);
  await playing(browser);
  report.operator = await page.evaluate(() => window.fishladder.hls.url);

  // The status page has the token of this tab.
  await page.goto(`${base}/`);
  await until('the preview', page, () => document.querySelector('[data-preview="playing"]') !== null);
  report.preview = true;
  // The address for players that its button copies is a signed one.
  await page.context().grantPermissions(['clipboard-read', 'clipboard-write']);
  await page.click('.card button:has-text("Playlist")');
  await page.waitForSelector('.card button:has-text("Copied")');
  report.said = await page.textContent('.card button:has-text("Copied")');
  report.copied = await page.evaluate(() => navigator.clipboard.readText());
  if (screenshot) await page.screenshot({ path: screenshot });
} finally {
  await browser.close();
}
console.log(JSON.stringify(report));
