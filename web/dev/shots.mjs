// Screenshots of the built pages against the mock, to look at while designing.
//
//   npm run build && npm run shots -- OUT_DIR [status|devices1|devices4|devices12|drain|empty|down|dialog|watch|publish]…

import { mkdirSync } from 'node:fs';
import { chromium } from 'playwright-core';
import { start } from './mock.mjs';

const [out = 'shots', ...wanted] = process.argv.slice(2);
mkdirSync(out, { recursive: true });
const port = 8090;
const base = `http://127.0.0.1:${port}`;
await start(port);
const mock = (query) => fetch(`${base}/mock?${query}`, { method: 'POST' });
await fetch(`${base}/live/demo/index.m3u8`); // starts the stream

const sizes = [
  [390, 844],
  [1280, 800],
  [2560, 1440],
];
const fleet = (count) => ({
  path: '/',
  before: () => mock(`scenario=one&devices=${count}`),
  open: '.devices',
  wait: 2500,
});
const pages = {
  status: { path: '/', before: () => mock('scenario=many&devices=0'), wait: 6000 },
  devices1: fleet(1),
  devices4: fleet(4),
  devices12: fleet(12),
  drain: { ...fleet(4), click: 'Drain sim0', wait: 800 },
  empty: { path: '/', before: () => mock('scenario=none&devices=0'), wait: 500 },
  down: { path: '/', before: () => mock('scenario=many'), then: () => mock('scenario=down'), wait: 6000 },
  dialog: { path: '/', before: () => mock('scenario=many'), click: 'Add channel', wait: 800 },
  watch: { path: '/watch/demo', before: () => mock('scenario=many'), wait: 6000 },
  waiting: { path: '/watch/choir', before: () => mock('scenario=many'), wait: 2500 },
  publish: { path: '/publish/demo?test-card=1', before: () => mock('scenario=many'), wait: 2500 },
  refused: { path: '/publish/demo?test-card=1&start=1', before: () => mock('scenario=many'), wait: 4000 },
};

const browser = await chromium.launch({
  executablePath: '/usr/bin/chromium',
  args: [
    '--headless',
    '--no-sandbox',
    '--disable-gpu',
    '--disable-background-networking',
    '--disable-component-update',
  ],
});
for (const [name, spec] of Object.entries(pages)) {
  if (wanted.length > 0 && !wanted.includes(name)) continue;
  for (const [width, height] of sizes) {
    for (const colorScheme of ['light', 'dark']) {
      await spec.before();
      const context = await browser.newContext({ viewport: { width, height }, colorScheme });
      const page = await context.newPage();
      page.on('console', (message) => {
        if (message.type() === 'error') console.log(name, width, message.text());
      });
      page.on('pageerror', (error) => console.log(name, width, error.message));
      await page.goto(base + spec.path);
      if (spec.open)
        await page.locator(spec.open).evaluate(async (details) => {
          while (details.hidden) await new Promise((drawn) => requestAnimationFrame(drawn));
          details.open = true;
        });
      if (spec.click) await page.getByRole('button', { name: spec.click }).first().click();
      await page.waitForTimeout(spec.then ? 3000 : spec.wait);
      if (spec.then) {
        await spec.then();
        await page.waitForTimeout(spec.wait);
      }
      const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      if (overflow > 0) console.log(`${name} ${width}: ${overflow} px wider than the window`);
      await page.screenshot({ path: `${out}/${name}-${width}-${colorScheme}.png`, fullPage: width < 500 });
      await context.close();
    }
  }
}
await browser.close();
process.exit(0);
