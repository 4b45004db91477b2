// The devices on the status page: what each has promised to whom, how it does, and the latest decisions.

import './devices.css';
import {
  drainDevice,
  isChannelName,
  Problem,
  restoreDevice,
  type Decision,
  type Device,
  type Fleet,
  type Reservation,
} from '../api';
import { arrange, h, icon, replaceChildren, setAttribute, setText } from '../ui/dom';
import { openDialog } from '../ui/dialog';
import { formatMebibytes } from '../ui/format';
import {
  DEVICE_STATE_WORDS,
  assignColors,
  bars,
  deviceSentence,
  drainQuestion,
  fleetFacts,
  kindWords,
  loadFacts,
  movesSentence,
  percent,
  policySentence,
  restoreQuestion,
  rungWords,
  sessionSlots,
  type Bar,
} from './fleet';

const OPEN_KEY = 'fishladder.devices.open';
/** With more devices than this the section begins folded, so that the channels below stay in sight. */
const OPEN_UP_TO = 4;
const DECISIONS_SHOWN = 5;
/** A list of more ladders than this begins folded: the bars show them too. */
const LADDERS_SHOWN = 6;
/** Bars of a device with more of them than this are thin, so that its card is no tower. */
const THIN_FROM = 6;

export class Devices {
  readonly element: HTMLDetailsElement;
  private readonly facts = h('ul', { class: 'fleet-facts' });
  private readonly failure = h('p', { class: 'message error', role: 'alert', hidden: true });
  private readonly grid = h('div', { class: 'device-grid' });
  private readonly policy = h('p', { class: 'hint' });
  private readonly decisions = new Decisions();
  private readonly cards = new Map<string, DeviceCard>();
  private fleet: Fleet = { policy: '', devices: [], decisions: [] };
  private shownFacts = '';
  private colors: ReadonlyMap<string, number> = new Map();

  /** `onChanged`: after a device was drained or restored. */
  constructor(private readonly onChanged: () => void) {
    const summary = h('summary', {}, h('h2', {}, 'Devices'), this.facts);
    this.element = h(
      'details',
      { class: 'devices', hidden: true },
      summary,
      h(
        'div',
        { class: 'devices-body' },
        this.failure,
        this.grid,
        h('div', { class: 'decisions-block' }, this.decisions.element, this.policy),
      ),
    );
    // Only what the person did is kept, so not on `toggle`, which the page's own opening fires too.
    summary.addEventListener('click', () =>
      localStorage.setItem(OPEN_KEY, this.element.open ? 'closed' : 'open'),
    );
  }

  update(fleet: Fleet): void {
    this.fleet = fleet;
    this.failure.hidden = true;
    const { devices } = fleet;
    if (this.element.hidden && devices.length > 0) {
      const kept = localStorage.getItem(OPEN_KEY);
      this.element.open = kept === null ? devices.length <= OPEN_UP_TO : kept === 'open';
    }
    this.element.hidden = devices.length === 0;
    const facts = fleetFacts(fleet);
    const key = JSON.stringify(facts);
    if (key !== this.shownFacts) {
      this.shownFacts = key;
      replaceChildren(this.facts, ...facts.map(({ text, state }) => h('li', { 'data-state': state }, text)));
    }
    this.colors = assignColors(
      this.colors,
      devices.flatMap((device) => device.ladders.map((ladder) => ladder.channel)),
    );
    const wanted = devices.map((device) => {
      const card =
        this.cards.get(device.id) ?? new DeviceCard(() => this.fleet.devices, this.onChanged, device);
      this.cards.set(device.id, card);
      card.update(device, this.colors);
      return card.element;
    });
    const ids = new Set(devices.map((device) => device.id));
    for (const id of this.cards.keys()) if (!ids.has(id)) this.cards.delete(id);
    arrange(this.grid, wanted);
    this.decisions.update(fleet.decisions);
    setText(this.policy, policySentence(fleet.policy));
  }

  /** What is shown stays, marked as old. */
  fail(reason: string): void {
    if (this.element.hidden) return;
    replaceChildren(
      this.failure,
      icon('error'),
      h('span', {}, `The devices cannot be read: ${reason} What you see is old.`),
    );
    this.failure.hidden = false;
    // The line above is out of sight while the section is folded.
    this.shownFacts = '';
    replaceChildren(this.facts, h('li', { 'data-state': 'quarantined' }, 'cannot be read'));
  }
}

class DeviceCard {
  readonly element: HTMLElement;
  private readonly pill = h('span', { class: 'pill' });
  private readonly hot = h('span', { class: 'pill', 'data-state': 'interrupted', hidden: true }, 'Throttled');
  private readonly kind = h('span', { class: 'muted device-kind' });
  private readonly message = h('p', { class: 'message', hidden: true });
  private readonly bars = h('div', { class: 'bars' });
  private readonly slots = h('div', { class: 'slots' });
  private readonly load = h('p', { class: 'footnote' });
  private readonly laddersSummary = h('summary');
  private readonly laddersBody = h('tbody');
  private readonly ladders: HTMLDetailsElement;
  private readonly rows = new Map<string, LadderRow>();
  private readonly result = h('p', { class: 'device-result', role: 'status' });
  private readonly drain: HTMLButtonElement;
  private readonly restore: HTMLButtonElement;
  private colors: ReadonlyMap<string, number> = new Map();
  private shownBars = '';
  private shownSlots = '';
  private shownMessage = '';
  /** The state in which the device was right after the person's own change: the sentence on it stays as long. */
  private resultState: Device['state'] | null = null;

  constructor(
    private readonly everyDevice: () => readonly Device[],
    private readonly onChanged: () => void,
    private device: Device,
  ) {
    const { name } = device;
    const button = (text: string, how: 'drain' | 'restore') =>
      h(
        'button',
        {
          class: 'button',
          type: 'button',
          'aria-label': `${text} ${name}`,
          onclick: () => void this.change(how),
        },
        text,
      );
    this.drain = button('Drain', 'drain');
    this.restore = button('Restore', 'restore');
    this.ladders = h(
      'details',
      { class: 'device-ladders', open: device.ladders.length <= LADDERS_SHOWN },
      this.laddersSummary,
      h(
        'table',
        {},
        h('caption', { class: 'visually-hidden' }, `Ladders on ${name}`),
        h(
          'thead',
          {},
          h(
            'tr',
            {},
            ...['Channel', 'Encode', 'Decode', 'VRAM'].map((text) => h('th', { scope: 'col' }, text)),
          ),
        ),
        this.laddersBody,
      ),
    );
    this.element = h(
      'article',
      { class: 'device', 'aria-label': `Device ${name}` },
      h('header', { class: 'device-header' }, h('h3', {}, name), this.kind, this.hot, this.pill),
      this.message,
      this.bars,
      this.slots,
      this.load,
      this.ladders,
      h('footer', { class: 'device-actions' }, this.drain, this.restore, this.result),
    );
  }

  update(device: Device, colors: ReadonlyMap<string, number>): void {
    this.device = device;
    this.colors = colors;
    setAttribute(this.element, 'data-state', device.state);
    setAttribute(this.pill, 'data-state', device.state);
    setText(this.pill, DEVICE_STATE_WORDS[device.state]);
    this.hot.hidden = (device.measured?.throttle.length ?? 0) === 0;
    const kind = kindWords(device.kind);
    setText(this.kind, kind.toLowerCase() === device.name.toLowerCase() ? '' : kind);
    if (device.workerPid !== null)
      setAttribute(this.kind, 'title', `Its worker is process ${device.workerPid}`);
    this.showMessage();
    this.showBars();
    this.showSlots();
    const facts = loadFacts(device);
    // A line may break between facts, not between a number and its unit.
    setText(this.load, facts.map((fact) => fact.replaceAll(' ', '\u00a0')).join(' · '));
    this.load.hidden = facts.length === 0;
    this.showLadders();
    this.showButtons();
    if (this.result.textContent !== '') {
      this.resultState ??= device.state;
      if (this.resultState !== device.state) setText(this.result, '');
      else if (device.state === 'draining' && device.ladders.length === 0)
        setText(this.result, `${device.name} is empty now.`);
    }
  }

  private showButtons(): void {
    const ready = this.device.state === 'ready';
    const [shown, gone] = ready ? [this.drain, this.restore] : [this.restore, this.drain];
    // The keyboard stays where it was: on the one button of this card.
    const focused = document.activeElement === gone;
    shown.hidden = false;
    gone.hidden = true;
    if (focused) shown.focus({ preventScroll: true });
  }

  private showMessage(): void {
    const text = deviceSentence(this.device);
    if (text === this.shownMessage) return;
    this.shownMessage = text;
    const level = this.device.state === 'quarantined' ? 'error' : 'warning';
    setAttribute(this.message, 'class', `message ${level}`);
    replaceChildren(this.message, icon(level), h('span', {}, text));
    this.message.hidden = text === '';
  }

  private showBars(): void {
    const wanted = bars(this.device);
    const key = JSON.stringify(wanted);
    if (key === this.shownBars) return;
    this.shownBars = key;
    const { encode, decode } = this.device;
    replaceChildren(
      this.bars,
      encode.length === 0 && noEngine('Encode', 'no encoder on this device'),
      decode.length === 0 && noEngine('Decode', 'no decoder on this device'),
      ...wanted.map((bar) => drawBar(bar, this.colors)),
    );
    this.bars.classList.toggle('thin', wanted.length > THIN_FROM);
  }

  private showSlots(): void {
    const { used, free, text } = sessionSlots(this.device);
    const key = `${used} ${free} ${text}`;
    if (key === this.shownSlots) return;
    this.shownSlots = key;
    const slots = Array.from({ length: used + free }, (_, at) =>
      h('span', { class: at < used ? 'slot used' : 'slot' }),
    );
    replaceChildren(
      this.slots,
      h('span', { class: 'bar-label' }, 'Sessions'),
      h('span', { class: 'slot-row', 'aria-hidden': 'true' }, ...slots),
      h('span', { class: 'bar-value' }, text),
    );
  }

  private showLadders(): void {
    const { ladders } = this.device;
    this.ladders.hidden = ladders.length === 0;
    setText(this.laddersSummary, ladders.length === 1 ? '1 ladder' : `${ladders.length} ladders`);
    const sorted = [...ladders].sort((a, b) => a.channel.localeCompare(b.channel, 'en'));
    const keys = new Set<string>();
    const wanted = sorted.map((ladder, at) => {
      // A channel has one session at a time, but nothing here may depend on it.
      const key = keys.has(ladder.channel) ? `${ladder.channel} ${at}` : ladder.channel;
      keys.add(key);
      const row = this.rows.get(key) ?? new LadderRow(ladder.channel, this.colors);
      this.rows.set(key, row);
      row.update(ladder);
      return row.element;
    });
    for (const key of this.rows.keys()) if (!keys.has(key)) this.rows.delete(key);
    arrange(this.laddersBody, wanted);
  }

  private async change(how: 'drain' | 'restore'): Promise<void> {
    const { device } = this;
    const draining = how === 'drain';
    let text = '';
    const agreed = await openDialog({
      title: `${draining ? 'Drain' : 'Restore'} ${device.name}?`,
      body: [h('p', {}, draining ? drainQuestion(device, this.everyDevice()) : restoreQuestion(device))],
      confirm: draining ? 'Drain device' : 'Restore device',
      onConfirm: async () => {
        try {
          const moves = await (draining ? drainDevice(device.id) : restoreDevice(device.id));
          text = movesSentence(device.name, how, moves);
          return null;
        } catch (error) {
          return error instanceof Problem ? error.message : 'The server cannot be reached.';
        }
      },
    });
    if (!agreed) return;
    this.resultState = null;
    setText(this.result, text);
    this.onChanged();
  }
}

class LadderRow {
  readonly element: HTMLTableRowElement;
  private readonly rungs = h('span', { class: 'muted device-rungs' });
  private readonly moving = h('span', { class: 'moving-note', hidden: true }, 'moving');
  private readonly cells = ['encode', 'decode', 'vram'].map(() => h('td', { class: 'number' }));

  constructor(channel: string, colors: ReadonlyMap<string, number>) {
    const swatch = h('span', { class: 'channel-swatch' });
    tint(swatch, colors.get(channel));
    const name = isChannelName(channel)
      ? h('a', { href: `#channel-${channel}`, title: `To channel ${channel}` }, channel)
      : h('span', {}, channel || '(no name)');
    this.element = h(
      'tr',
      {},
      h(
        'th',
        { scope: 'row' },
        h('div', { class: 'device-channel' }, swatch, h('div', {}, name, this.moving, this.rungs)),
      ),
      ...this.cells,
    );
  }

  update(ladder: Reservation): void {
    const rungs = rungWords(ladder);
    setText(this.rungs, rungs);
    setAttribute(this.rungs, 'title', rungs);
    this.moving.hidden = !ladder.moving;
    const values = [
      percent(ladder.encode),
      ladder.decode === null ? '–' : percent(ladder.decode),
      formatMebibytes(ladder.vramMib),
    ];
    this.cells.forEach((cell, at) => setText(cell, values[at] ?? ''));
  }
}

class Decisions {
  readonly element: HTMLElement;
  private readonly list = h('ol', { class: 'decisions' });
  private readonly more: HTMLButtonElement;
  private all = false;
  private decisions: readonly Decision[] = [];
  private shown = '';

  constructor() {
    this.more = h('button', {
      class: 'text-button',
      type: 'button',
      onclick: () => {
        this.all = !this.all;
        this.show();
      },
    });
    this.element = h(
      'section',
      { 'aria-label': 'Latest decisions' },
      h('h3', {}, 'Latest decisions'),
      this.list,
      this.more,
    );
  }

  update(decisions: readonly Decision[]): void {
    this.decisions = decisions;
    this.show();
  }

  private show(): void {
    const count = this.decisions.length;
    this.element.hidden = count === 0;
    this.more.hidden = count <= DECISIONS_SHOWN;
    setText(this.more, this.all ? `Show the latest ${DECISIONS_SHOWN}` : `Show all ${count}`);
    setAttribute(this.more, 'aria-expanded', String(this.all));
    // All of them scroll within the list, also by keyboard.
    this.list.tabIndex = this.all ? 0 : -1;
    const wanted = this.all ? this.decisions : this.decisions.slice(0, DECISIONS_SHOWN);
    const key = JSON.stringify(wanted);
    if (key === this.shown) return;
    this.shown = key;
    replaceChildren(
      this.list,
      ...wanted.map(({ at, level, text }) =>
        h(
          'li',
          { class: `decision ${level}` },
          when(at),
          icon(level),
          level !== 'info' &&
            h('span', { class: 'visually-hidden' }, level === 'error' ? 'Error:' : 'Warning:'),
          h('span', { class: 'decision-text' }, text),
        ),
      ),
    );
  }
}

function when(at: number): HTMLElement {
  if (!Number.isFinite(at)) return h('span', { class: 'decision-time' }, '–');
  const date = new Date(at);
  const today = date.toDateString() === new Date().toDateString();
  const text = today
    ? date.toLocaleTimeString('en-GB')
    : date.toLocaleString('en-GB', { day: 'numeric', month: 'short', hour: '2-digit', minute: '2-digit' });
  return h(
    'time',
    { class: 'decision-time', dateTime: date.toISOString(), title: date.toLocaleString() },
    text,
  );
}

function drawBar(bar: Bar, colors: ReadonlyMap<string, number>): HTMLElement {
  const track = h('div', { class: 'track' });
  track.style.setProperty('--limit', String(bar.whole > 0 ? bar.limit / bar.whole : 1));
  for (const { channel, amount, moving, title } of bar.segments) {
    const segment = h(
      'span',
      { class: moving ? 'segment moving' : 'segment', title },
      h('span', {}, channel ?? 'unattributed'),
    );
    segment.style.setProperty('--amount', String(amount / bar.whole));
    if (channel !== null) tint(segment, colors.get(channel));
    track.append(segment);
  }
  if (bar.limit < bar.whole) track.append(h('span', { class: 'limit' }));
  return h(
    'div',
    { class: bar.over ? 'bar over' : 'bar', role: 'img', 'aria-label': bar.sentence },
    h('span', { class: 'bar-label' }, bar.label),
    track,
    h('span', { class: 'bar-value', title: bar.sentence }, bar.value),
  );
}

function noEngine(label: string, text: string): HTMLElement {
  return h(
    'div',
    { class: 'bar' },
    h('span', { class: 'bar-label' }, label),
    h('span', { class: 'muted no-engine' }, text),
  );
}

/** Colours by script: the policy of the pages forbids style attributes in markup. */
function tint(element: HTMLElement, color = 0): void {
  element.style.setProperty('--hue', String((color % 12) * 30 + 10));
  element.dataset['shade'] = color < 12 ? '0' : '1';
}
