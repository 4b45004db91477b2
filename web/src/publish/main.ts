// The publish page: camera, screen or test card to a channel, over WHIP.
//
// `?test-card=1&start=1` begins by itself; `width`, `height`, `fps`, `bitrate` (kb/s) and `sound=0` say how.

import '../ui/style.css';
import './publish.css';
import { channelOfPath } from '../api';
import { byId, h, icon, replaceChildren, setAttribute, setText } from '../ui/dom';
import {
  formatBitrate,
  formatCount,
  formatDuration,
  formatFrameRate,
  formatLatency,
  formatPercent,
} from '../ui/format';
import { copyButton, linkButton, pageHeader } from '../ui/header';
import { startTheme } from '../ui/theme';
import { capture, captureError, type Capture, type Kind } from './capture';
import { Publisher, type PublishState } from './publisher';

interface Format {
  width: number;
  height: number;
  fps: number;
  /** What suits H.264 at this size, bits a second. */
  bitrate: number;
}

const FORMATS: Format[] = [
  { width: 1920, height: 1080, fps: 60, bitrate: 8_000_000 },
  { width: 1920, height: 1080, fps: 30, bitrate: 6_000_000 },
  { width: 1280, height: 720, fps: 60, bitrate: 4_500_000 },
  { width: 1280, height: 720, fps: 30, bitrate: 3_000_000 },
  { width: 854, height: 480, fps: 30, bitrate: 1_500_000 },
  { width: 640, height: 360, fps: 30, bitrate: 800_000 },
];
const DEFAULT_FORMAT = 3;
const BITRATES = [500, 800, 1500, 3000, 4500, 6000, 8000, 12_000];

const STATES: Record<PublishState['name'], { pillState: string; words: string }> = {
  idle: { pillState: 'waiting', words: 'Not publishing' },
  connecting: { pillState: 'starting', words: 'Connecting' },
  live: { pillState: 'live', words: 'Live' },
  retrying: { pillState: 'interrupted', words: 'Trying again' },
  failed: { pillState: 'error', words: 'Refused' },
};

startTheme();
const channel = channelOfPath(location.pathname);
if (channel) start(channel);
else {
  byId('app').append(
    pageHeader(null),
    h(
      'main',
      { class: 'publish' },
      h(
        'p',
        { class: 'message error' },
        icon('error'),
        'This address names no channel: letters, digits, _ and -, at most 64.',
      ),
    ),
  );
}

function start(name: string): void {
  document.title = `Publish ${name} · Fishladder`;
  const query = new URLSearchParams(location.search);
  const formats = withQuery(query);
  const publisher = new Publisher(new URL(`/whip/${name}`, location.href).href, () => show());
  let kind: Kind = query.get('test-card') === '1' ? 'card' : 'camera';
  let current: Capture | null = null;
  let opening = false;
  let problem = '';

  const video = h('video', { muted: true, playsInline: true, autoplay: true, 'aria-label': 'Preview' });
  const placeholder = h('div', { class: 'placeholder' });
  const pill = h('span', { class: 'pill', role: 'status' });
  const message = h('div', { class: 'publish-message', role: 'alert' });
  const hint = h('p', { class: 'hint' });
  const figures = h('dl', { class: 'send-stats' });
  const format = select(
    'Picture',
    formats.map((each, at) => [String(at), `${each.height}p, ${each.fps} fps`]),
  );
  const bitrate = select('Bit rate', [
    ['0', ''],
    ...BITRATES.map((each): [string, string] => [String(each), formatBitrate(each * 1000)]),
  ]);
  const camera = select('Camera', [['', 'Any camera']]);
  const sound = select('Sound', []);
  const action = h('button', { class: 'button primary action', type: 'button', onclick: () => void act() });
  const settings = h('fieldset', { class: 'settings' });
  const watchUrl = new URL(`/watch/${name}`, location.href).href;

  format.input.value = String(formats.length > FORMATS.length ? FORMATS.length : DEFAULT_FORMAT);
  if (query.has('bitrate')) {
    const wanted = clamp(Number(query.get('bitrate')), 100, 50_000, 3000);
    bitrate.input.append(h('option', { value: String(wanted) }, formatBitrate(wanted * 1000)));
    bitrate.input.value = String(wanted);
  }
  const kinds: [Kind, 'camera' | 'screen' | 'card', string][] = [
    ['camera', 'camera', 'Camera'],
    ['screen', 'screen', 'Screen'],
    ['card', 'card', 'Test card'],
  ];
  settings.append(
    h(
      'fieldset',
      { class: 'segmented' },
      h('legend', {}, 'Source'),
      ...kinds.map(([value, picture, label]) =>
        h(
          'label',
          {},
          h('input', {
            type: 'radio',
            name: 'source',
            value,
            checked: value === kind,
            onchange: () => {
              kind = value;
              close();
              fillSound();
              // A card asks nobody's leave; camera and screen wait for a click.
              if (kind === 'card') void open();
              show();
            },
          }),
          h('span', {}, icon(picture), h('b', {}, label)),
        ),
      ),
    ),
    camera.field,
    sound.field,
    h('div', { class: 'pair' }, format.field, bitrate.field),
  );
  for (const each of [format, camera, sound])
    each.input.addEventListener('change', () => {
      nameAutomatic();
      if (current) void reopen();
    });

  byId('app').append(
    pageHeader(h('h1', {}, name), pill, linkButton('/', 'stats', 'All channels', 'button header-link')),
    h(
      'main',
      { class: 'publish' },
      h('section', { class: 'publish-picture' }, h('div', { class: 'preview' }, video, placeholder), figures),
      h(
        'section',
        { class: 'publish-panel', 'aria-label': 'Settings' },
        settings,
        action,
        message,
        hint,
        h(
          'div',
          { class: 'publish-links' },
          linkButton(`/watch/${name}`, 'play', 'Watch it'),
          copyButton(watchUrl, 'Copy link', `Copy ${watchUrl}`),
        ),
      ),
    ),
  );

  Object.defineProperty(window, 'fishladder', {
    value: {
      get state() {
        return publisher.state.name;
      },
      get peer() {
        return publisher.peer;
      },
      stats: () => publisher.stats,
      skippedFrames: () => current?.card?.skipped ?? 0,
    },
  });
  document.addEventListener('pointerdown', () => current?.card?.resume());
  document.addEventListener('keydown', () => current?.card?.resume());
  navigator.mediaDevices?.addEventListener('devicechange', () => void listDevices());
  setInterval(() => show(), 1000);

  fillSound();
  nameAutomatic();
  void listDevices();
  if (query.get('start') === '1') void act();
  else if (kind === 'card') void open();
  show();

  async function act(): Promise<void> {
    if (publisher.running) {
      publisher.stop();
      return;
    }
    if (!current && !(await open())) return;
    if (!current) return;
    const { fps } = chosenFormat();
    publisher.start(current.tracks, { maxBitrate: chosenBitrate(), maxFramerate: fps });
  }

  async function open(): Promise<boolean> {
    if (opening) return false;
    opening = true;
    problem = '';
    show();
    const wanted = kind;
    try {
      const fresh = await capture({
        ...chosenFormat(),
        kind: wanted,
        camera: camera.input.value,
        microphone: sound.input.value || 'none',
        title: name,
      });
      // The person chose another source while the browser was asking.
      if (wanted !== kind) {
        fresh.stop();
        return false;
      }
      close();
      current = fresh;
      video.srcObject = new MediaStream(fresh.tracks.filter((track) => track.kind === 'video'));
      void video.play().catch(() => undefined);
      for (const track of fresh.tracks)
        track.addEventListener('ended', () => current === fresh && ended(wanted));
      void listDevices();
      return true;
    } catch (error) {
      if (wanted === kind) problem = captureError(error, wanted);
      return false;
    } finally {
      opening = false;
      show();
    }
  }

  async function reopen(): Promise<void> {
    close();
    await open();
  }

  function close(): void {
    current?.stop();
    current = null;
    problem = '';
    video.srcObject = null;
  }

  function ended(wanted: Kind): void {
    publisher.stop();
    close();
    problem =
      wanted === 'screen'
        ? 'Sharing the screen was ended.'
        : 'The camera or the microphone was unplugged or switched off.';
    show();
  }

  function show(): void {
    const { state } = publisher;
    const { pillState, words } = STATES[state.name];
    setAttribute(pill, 'data-state', pillState);
    setText(
      pill,
      state.name === 'live' ? `Live · ${formatDuration((Date.now() - state.since) / 1000)}` : words,
    );
    settings.disabled = publisher.running || opening;
    camera.field.hidden = kind !== 'camera';
    const start = kind === 'screen' && !current ? 'Choose a screen and start' : 'Start publishing';
    setText(action, publisher.running ? 'Stop publishing' : opening ? 'Waiting for permission…' : start);
    action.disabled = opening;
    action.className = publisher.running ? 'button danger action' : 'button primary action';
    showMessage(state);
    showPlaceholder();
    const beepless = current?.card?.silent && sound.input.value !== 'none';
    const limit = publisher.stats?.limit ?? '';
    const held = limit ? `The picture is held back: ${limit}.` : '';
    const mute = 'The browser keeps the beep silent until you click or press a key on this page.';
    setText(hint, beepless ? mute : held);
    showFigures();
  }

  function showMessage(state: PublishState): void {
    let text = problem;
    let level: 'error' | 'warning' = 'error';
    if (state.name === 'failed') text = state.reason;
    if (state.name === 'retrying') {
      level = 'warning';
      text = `${state.reason} Trying again in ${Math.max(1, Math.ceil((state.at - Date.now()) / 1000))} s.`;
    }
    if (message.dataset['text'] === text) return;
    message.dataset['text'] = text;
    replaceChildren(
      message,
      text ? h('p', { class: `message ${level}` }, icon(level), h('span', {}, text)) : null,
    );
  }

  function showPlaceholder(): void {
    placeholder.hidden = current !== null;
    const key = `${kind}${opening}`;
    if (placeholder.dataset['key'] === key) return;
    placeholder.dataset['key'] = key;
    if (opening) return replaceChildren(placeholder, h('p', {}, 'The browser asks for your permission…'));
    const label = { camera: 'Turn on the camera', screen: 'Choose a screen', card: 'Show the test card' }[
      kind
    ];
    replaceChildren(
      placeholder,
      h(
        'button',
        { class: 'button', type: 'button', onclick: () => void open() },
        icon(kind),
        h('span', {}, label),
      ),
      h('p', {}, 'Nothing is sent before you start publishing.'),
    );
  }

  function showFigures(): void {
    const s = publisher.stats;
    figures.hidden = s === null;
    if (!s) return;
    const rows: [string, string][] = [
      ['Sending', formatBitrate(s.bitrate)],
      ['Picture', s.width ? `${s.width}×${s.height}` : '–'],
      ['Codec', s.codec === 'H264' ? 'H.264' : s.codec || '–'],
      ['Frame rate', `${formatFrameRate(Math.round(s.fps))} fps`],
      ['Round trip', s.rtt === null ? '–' : formatLatency(s.rtt)],
      ['Loss', s.loss === null ? '–' : formatPercent(s.loss, 1)],
      ['Key frames', formatCount(s.keyFrames)],
      ['NACK / PLI', `${formatCount(s.nacks)} / ${formatCount(s.plis)}`],
    ];
    replaceChildren(
      figures,
      ...rows.map(([label, value]) => h('div', {}, h('dt', {}, label), h('dd', {}, value))),
    );
  }

  function chosenFormat(): Format {
    return (
      formats[Number(format.input.value)] ??
      FORMATS[DEFAULT_FORMAT] ?? { width: 1280, height: 720, fps: 30, bitrate: 3e6 }
    );
  }

  function chosenBitrate(): number {
    return Number(bitrate.input.value) * 1000 || chosenFormat().bitrate;
  }

  function nameAutomatic(): void {
    const [automatic] = bitrate.input.options;
    if (automatic) automatic.textContent = `Auto, ${formatBitrate(chosenFormat().bitrate)}`;
  }

  function fillSound(): void {
    const first: Record<Kind, [string, string][]> = {
      camera: [['default', 'Default microphone']],
      screen: [['default', 'Screen, or microphone']],
      card: [['default', 'A beep each second']],
    };
    fill(sound.input, [...first[kind], ['none', 'No sound']]);
    if (query.get('sound') === '0') sound.input.value = 'none';
    if (kind !== 'card') void listDevices();
  }

  async function listDevices(): Promise<void> {
    // Names are given only after a permission was; without one the lists stay as they are.
    const devices = (await navigator.mediaDevices?.enumerateDevices().catch(() => [])) ?? [];
    const named = (type: string) =>
      devices
        .filter(
          (device) =>
            device.kind === type &&
            device.deviceId !== '' &&
            device.deviceId !== 'default' &&
            device.label !== '',
        )
        .map((device): [string, string] => [device.deviceId, device.label]);
    fill(camera.input, [['', 'Any camera'], ...named('videoinput')]);
    if (kind === 'card') return;
    fill(sound.input, [
      ['default', kind === 'screen' ? 'Screen, or microphone' : 'Default microphone'],
      ...named('audioinput'),
      ['none', 'No sound'],
    ]);
  }
}

/** The formats on offer, with the one that the address asks for at the end. */
function withQuery(query: URLSearchParams): Format[] {
  if (!['width', 'height', 'fps'].some((key) => query.has(key))) return FORMATS;
  const even = (n: number) => Math.round(n / 2) * 2;
  const width = even(clamp(Number(query.get('width') ?? Number.NaN), 160, 3840, 1280));
  const height = even(clamp(Number(query.get('height') ?? Number.NaN), 90, 2160, (width * 9) / 16));
  const fps = clamp(Number(query.get('fps') ?? Number.NaN), 1, 120, 30);
  return [
    ...FORMATS,
    { width, height, fps, bitrate: Math.max(300_000, Math.round(width * height * fps * 0.11)) },
  ];
}

function clamp(value: number, low: number, high: number, otherwise: number): number {
  return Number.isFinite(value) ? Math.min(high, Math.max(low, value)) : otherwise;
}

function select(label: string, options: [string, string][]) {
  const input = h('select');
  fill(input, options);
  return { input, field: h('label', { class: 'field' }, h('span', {}, label), input) };
}

/** Keeps the choice where it is still on offer. */
function fill(input: HTMLSelectElement, options: [string, string][]): void {
  const before = input.value;
  replaceChildren(input, ...options.map(([value, label]) => h('option', { value }, label)));
  if (options.some(([value]) => value === before)) input.value = before;
}
