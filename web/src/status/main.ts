// The status page: the devices and every channel, problems first, polled while someone looks.

import '../ui/style.css';
import './status.css';
import { listChannels, listDevices, Problem, type Channel } from '../api';
import { arrange, byId, h, icon, replaceChildren, setText } from '../ui/dom';
import { formatBitrate, formatCount, formatDuration } from '../ui/format';
import { copyButton, pageHeader } from '../ui/header';
import { startTheme } from '../ui/theme';
import { addChannelDialog } from './add';
import { Card } from './card';
import { Devices } from './devices';
import { byUrgency, overview } from './model';
import { Previews } from './previews';

const POLL_MS = 2000;
const TIMEOUT_MS = 6000;
/** From this many channels on, a filter helps more than it clutters. */
const FILTER_FROM = 7;
/** More problems than this are counted, not listed: the cards below have them all. */
const PROBLEMS_SHOWN = 6;
/** `grid-auto-rows` of the grid. */
const ROW_PX = 4;

startTheme();

const previews = new Previews();
const cards = new Map<string, Card>();
const devices = new Devices(() => void poll());
let channels: Channel[] = [];
let clockOffset = 0;
let lastAnswer: number | null = null;
let failure: string | null = null;
let tokenDeclined = false;
let timer = 0;
let polling: AbortController | null = null;

const figures = h('dl', { class: 'figures' });
const banner = h('div', { class: 'banner', role: 'alert', hidden: true });
/** Spans each card over the rows it needs, so that short and tall ones pack without holes. */
const heights = new ResizeObserver((entries) => {
  for (const entry of entries) {
    if (!(entry.target instanceof HTMLElement)) continue;
    const box =
      entry.target.getBoundingClientRect().height + parseFloat(getComputedStyle(entry.target).marginBottom);
    entry.target.style.gridRowEnd = `span ${Math.ceil(box / ROW_PX)}`;
  }
});
const problems = h('ul', { class: 'problems', 'aria-label': 'Problems' });
const grid = h('div', { class: 'grid' });
const empty = h('section', { class: 'empty', hidden: true });
const filter = h('input', {
  type: 'search',
  class: 'filter',
  placeholder: 'Filter channels',
  'aria-label': 'Filter channels by name',
  hidden: true,
  oninput: () => show(),
});
const pictures = h('input', {
  type: 'checkbox',
  checked: previews.enabled,
  onchange: () => {
    previews.enabled = pictures.checked;
  },
});
const overviewBar = h(
  'div',
  { class: 'overview' },
  figures,
  h(
    'div',
    { class: 'overview-tools' },
    filter,
    h('label', { class: 'switch' }, pictures, h('span', {}, 'Pictures')),
  ),
);
const addButton = (style: string) =>
  h(
    'button',
    { class: style, type: 'button', onclick: () => void add() },
    icon('plus'),
    h('span', {}, 'Add channel'),
  );

byId('app').append(
  pageHeader(null, addButton('button primary')),
  h(
    'main',
    { class: 'status' },
    h('h1', { class: 'visually-hidden' }, 'Channels'),
    banner,
    overviewBar,
    problems,
    devices.element,
    empty,
    grid,
  ),
);

document.addEventListener('visibilitychange', () => {
  if (document.hidden) {
    clearTimeout(timer);
    polling?.abort();
  } else {
    void poll();
  }
});
void poll();

async function poll(): Promise<void> {
  clearTimeout(timer);
  polling?.abort();
  const abort = new AbortController();
  polling = abort;
  const deadline = setTimeout(() => abort.abort('timeout'), TIMEOUT_MS);
  try {
    const answer = await listChannels(abort.signal, !tokenDeclined);
    channels = answer.channels;
    clockOffset = answer.clockOffset;
    lastAnswer = Date.now();
    failure = null;
    show();
    await pollDevices(abort.signal);
  } catch (error) {
    if (abort.signal.aborted && abort.signal.reason !== 'timeout') return;
    if (error instanceof Problem && error.status === 401) tokenDeclined = true;
    failure = error instanceof Problem ? error.message : 'The server cannot be reached.';
  } finally {
    clearTimeout(deadline);
  }
  showBanner();
  if (!document.hidden && polling === abort) timer = window.setTimeout(() => void poll(), POLL_MS);
}

/** After the channels, so that the token which these needed is there. What fails here leaves the channels as they are. */
async function pollDevices(signal: AbortSignal): Promise<void> {
  try {
    devices.update(await listDevices(signal));
  } catch (error) {
    if (signal.aborted && signal.reason !== 'timeout') throw error;
    devices.fail(error instanceof Problem ? error.message : 'There was no answer.');
  }
}

function show(): void {
  const now = Date.now() + clockOffset;
  const sorted = byUrgency(channels);
  const names = new Set(sorted.map((channel) => channel.name));
  for (const [name, card] of cards) {
    if (names.has(name)) continue;
    heights.unobserve(card.element);
    card.remove();
    cards.delete(name);
  }
  for (const channel of sorted) {
    let card = cards.get(channel.name);
    if (!card) {
      card = new Card(channel, previews, () => void poll());
      cards.set(channel.name, card);
      heights.observe(card.element);
    }
    card.update(channel, now);
  }
  filter.hidden = channels.length < FILTER_FROM;
  const wanted = filter.hidden ? '' : filter.value.trim().toLowerCase();
  const visible = sorted.map((channel) => cards.get(channel.name)).filter((card) => card?.matches(wanted));
  arrange(
    grid,
    visible.flatMap((card) => (card ? [card.element] : [])),
  );
  showOverview();
  showEmpty();
  previews.reconcile();
}

function showOverview(): void {
  const sum = overview(channels);
  const items: [string, string, string][] = [
    ['live', formatCount(sum.live), 'live'],
    ['interrupted', formatCount(sum.interrupted), 'interrupted'],
    ['waiting', formatCount(sum.waiting), 'waiting'],
    ['viewers', formatCount(sum.viewers), sum.viewers === 1 ? 'viewer' : 'viewers'],
    ['ingest', formatBitrate(sum.ingest), 'coming in'],
  ];
  const shown = items.filter(([id, value]) => id !== 'interrupted' || value !== '0');
  arrange(
    figures,
    shown.map(([id, value, label]) => {
      const old = [...figures.children].find((child) => child.getAttribute('data-figure') === id);
      const item = old ?? h('div', { 'data-figure': id }, h('dd'), h('dt'));
      const [dd, dt] = item.children;
      if (dd) setText(dd, value);
      if (dt) setText(dt, label);
      return item;
    }),
  );
  document.title = sum.problems.length > 0 ? `(${sum.problems.length}) Fishladder` : 'Fishladder';

  const key = JSON.stringify(sum.problems);
  if (problems.dataset['key'] === key) return;
  problems.dataset['key'] = key;
  const listed = sum.problems
    .slice(0, PROBLEMS_SHOWN)
    .map(({ channel, level, text }) =>
      h(
        'li',
        { class: `problem ${level}` },
        icon(level),
        h('a', { href: `#channel-${channel}`, class: 'problem-channel' }, channel),
        h('span', { class: 'problem-text', title: text }, text),
      ),
    );
  const more = sum.problems.length - listed.length;
  replaceChildren(problems, ...listed, more > 0 && h('li', { class: 'problem' }, `and ${more} more below`));
  problems.hidden = listed.length === 0;
}

function showEmpty(): void {
  const isEmpty = channels.length === 0;
  grid.hidden = isEmpty;
  overviewBar.hidden = isEmpty;
  if (empty.hidden === !isEmpty) return;
  empty.hidden = !isEmpty;
  if (!isEmpty) return;
  const target = `${location.origin}/whip/my-channel`;
  replaceChildren(
    empty,
    h('h2', {}, 'No channels yet'),
    h('p', {}, 'A channel is a public name that viewers watch. Three ways to bring the first one to life:'),
    h(
      'ol',
      { class: 'ways' },
      h(
        'li',
        {},
        h('h3', {}, 'From this browser'),
        h('p', {}, 'Camera, screen or a test card; nothing to install.'),
        h(
          'a',
          { class: 'button primary', href: '/publish/my-channel' },
          icon('camera'),
          h('span', {}, 'Publish from here'),
        ),
      ),
      h(
        'li',
        {},
        h('h3', {}, 'From OBS'),
        h('p', {}, 'Settings → Stream → Service “WHIP”, Server:'),
        h('div', { class: 'paste' }, h('code', {}, target), copyButton(target, 'Copy', 'Copy the address')),
      ),
      h(
        'li',
        {},
        h('h3', {}, 'A camera, ffmpeg or GStreamer'),
        h('p', {}, 'Pull an RTSP address, or listen for RTP that an SDP describes.'),
        addButton('button'),
      ),
    ),
  );
}

function showBanner(): void {
  document.body.classList.toggle('stale', failure !== null && lastAnswer !== null);
  banner.hidden = failure === null;
  if (failure === null) return;
  if (tokenDeclined) {
    replaceChildren(
      banner,
      icon('error'),
      h('span', {}, 'This server shows its channels only with the admin token.'),
      h(
        'button',
        {
          class: 'button',
          type: 'button',
          onclick: () => {
            tokenDeclined = false;
            void poll();
          },
        },
        'Enter token',
      ),
    );
    return;
  }
  const age =
    lastAnswer === null
      ? ' Trying again every 2 s.'
      : ` What you see is from ${new Date(lastAnswer).toLocaleTimeString()}, ${formatDuration((Date.now() - lastAnswer) / 1000)} ago. Trying again every 2 s.`;
  replaceChildren(banner, icon('error'), h('span', {}, h('b', {}, failure), age));
}

async function add(): Promise<void> {
  const known = new Set(
    channels.map((channel) => channel.ladder).filter((name) => name !== '' && name !== 'inline'),
  );
  const name = await addChannelDialog([...known]);
  if (name === null) return;
  await poll();
  const card = document.getElementById(`channel-${name}`);
  card?.scrollIntoView({ block: 'center' });
  card?.focus({ preventScroll: true });
}
