// The watch page: one channel, large, as close to live as it goes.

import '../ui/style.css';
import './watch.css';
import { channelOfPath, watchablePath } from '../api';
import { add, byId, h, icon, replaceChildren, setAttribute, setText } from '../ui/dom';
import { formatBitrate, formatLatency } from '../ui/format';
import { linkButton, pageHeader } from '../ui/header';
import { startTheme } from '../ui/theme';
import { readClock } from './clock';
import { Menu } from './menu';
import { Player, type PlayerState } from './player';

/** This much later than hls.js aims at is worth a button. */
const BEHIND_S = 2;
const IDLE_MS = 3000;

/** Once someone chose about the sound, the invitation to switch it on has done its work. */
let touchedSound = false;

const STATE: Record<PlayerState, string> = {
  connecting: 'Connecting',
  waiting: 'Waiting',
  interrupted: 'Interrupted',
  playing: 'Live',
  ended: 'Ended',
  unsupported: 'Not supported',
};
const PILL: Record<PlayerState, string> = {
  connecting: 'starting',
  waiting: 'waiting',
  interrupted: 'interrupted',
  playing: 'live',
  ended: 'waiting',
  unsupported: 'error',
};

declare global {
  interface Window {
    /** For tests and support. */
    fishladder: unknown;
  }
}

startTheme();
// Another link to the same channel in this tab changes only what is behind `#`.
addEventListener('hashchange', () => location.reload());
const channel = channelOfPath(location.pathname);
if (channel) watchablePath(channel, location.hash).then((path) => start(channel, path), refuse);
else refuse('This address names no channel: letters, digits, _ and -, at most 64.');

/** Says why nothing can be watched here, instead of a player. */
function refuse(why: unknown): void {
  const text = why instanceof Error ? why.message : String(why);
  const main = h('main', { class: 'watch' }, h('p', { class: 'message error' }, icon('error'), text));
  replaceChildren(byId('app'), pageHeader(null), main);
}

function start(name: string, path: string): void {
  document.title = `${name} · Fishladder`;
  const video = h('video', { playsInline: true, muted: true, autoplay: true });
  // The attribute as well as the property: iOS looks at the attribute.
  video.setAttribute('muted', '');

  const pill = h('span', { class: 'pill', role: 'status' });
  const overlay = h('div', { class: 'overlay', role: 'status' });
  const spinner = h('div', { class: 'spinner', hidden: true });
  const unmute = h(
    'button',
    { class: 'unmute', type: 'button', hidden: true, onclick: () => toggleMute() },
    icon('muted'),
    h('span', {}, 'Sound on'),
  );
  const bigPlay = h(
    'button',
    { class: 'big-play', type: 'button', 'aria-label': 'Play', hidden: true, onclick: () => player.play() },
    icon('play'),
  );
  const playButton = control('pause', 'Pause (space)', () => togglePlay());
  const muteButton = control('muted', 'Sound on (m)', () => toggleMute());
  const volume = h('input', {
    class: 'volume',
    type: 'range',
    min: '0',
    max: '1',
    step: '0.05',
    value: '1',
    'aria-label': 'Volume',
    oninput: () => {
      video.volume = Number(volume.value);
      video.muted = video.volume === 0;
    },
  });
  const liveText = h('span', {});
  const goLive = h(
    'button',
    { class: 'control go-live', type: 'button', onclick: () => player.goLive() },
    liveText,
  );
  const quality = new Menu('gear', 'Quality', () => qualityChoices());
  const audio = new Menu('music', 'Sound track', () => audioChoices());
  const statsButton = control('stats', 'Statistics', () => {
    statsPanel.hidden = !statsPanel.hidden;
    setAttribute(statsButton, 'aria-pressed', String(!statsPanel.hidden));
    show();
  });
  setAttribute(statsButton, 'aria-pressed', 'false');
  const fullscreenButton = control('fullscreen', 'Full screen (f)', () => toggleFullscreen());
  const summary = h('p', { class: 'summary' });
  const statsPanel = h('dl', { class: 'stats', hidden: true });
  const bar = h(
    'div',
    { class: 'controls' },
    playButton,
    muteButton,
    volume,
    goLive,
    h('span', { class: 'spacer' }),
    audio.element,
    quality.element,
    statsButton,
    fullscreenButton,
  );
  const stage = h('div', { class: 'stage' }, video, spinner, overlay, bigPlay, unmute, statsPanel, bar);

  byId('app').append(
    pageHeader(h('h1', {}, name), pill, linkButton('/', 'stats', 'All channels', 'button header-link')),
    h(
      'main',
      { class: 'watch' },
      stage,
      h(
        'div',
        { class: 'under' },
        summary,
        h('p', { class: 'keys' }, key('space'), ' pause', key('m'), ' sound', key('f'), ' full screen'),
      ),
    ),
  );

  const player = new Player(
    video,
    path,
    () => show(),
    () => void watchablePath(name, location.hash).then((renewed) => player.moveTo(renewed), refuse),
  );
  Object.defineProperty(window, 'fishladder', {
    value: {
      get hls() {
        return player.hls;
      },
      get state() {
        return player.state;
      },
      stats: () => player.stats(),
      readClock: () => readClock(video),
      glassToGlass: () => {
        const captured = readClock(video);
        return captured === null ? null : Date.now() - captured;
      },
    },
  });

  for (const event of ['play', 'pause', 'volumechange', 'playing', 'waiting', 'loadeddata'] as const)
    video.addEventListener(event, () => show());
  video.addEventListener('click', () => (matchMedia('(hover: none)').matches ? wake() : togglePlay()));
  video.addEventListener('dblclick', () => toggleFullscreen());
  document.addEventListener('keydown', onKey);

  let idle = 0;
  const wake = () => {
    stage.classList.remove('idle');
    clearTimeout(idle);
    idle = window.setTimeout(() => {
      const busy = video.paused || audio.isOpen || quality.isOpen || bar.contains(focused());
      stage.classList.toggle('idle', !busy);
    }, IDLE_MS);
  };
  for (const event of ['pointermove', 'pointerdown', 'focusin'] as const) stage.addEventListener(event, wake);
  wake();
  show();

  function show(): void {
    // Called by the player's own constructor before the name is bound.
    if (typeof window.fishladder === 'undefined') return;
    const { state } = player;
    const stats = player.stats();
    setAttribute(stage, 'data-player', state);
    setAttribute(pill, 'data-state', PILL[state]);
    setText(pill, STATE[state]);
    showOverlay(state);
    const blocked = video.paused && video.readyState > 1 && state !== 'ended';
    bigPlay.hidden = !blocked;
    spinner.hidden = !(
      state === 'connecting' ||
      (state === 'playing' && video.readyState < 3 && !video.paused)
    );
    unmute.hidden = !(video.muted && state === 'playing' && !touchedSound);
    swapIcon(playButton, video.paused ? 'play' : 'pause', video.paused ? 'Play (space)' : 'Pause (space)');
    swapIcon(muteButton, video.muted ? 'muted' : 'volume', video.muted ? 'Sound on (m)' : 'Sound off (m)');
    if (document.activeElement !== volume) volume.value = String(video.muted ? 0 : video.volume);

    const { latency, targetLatency } = stats;
    const behind = latency !== null && targetLatency !== null && latency > targetLatency + BEHIND_S;
    setAttribute(goLive, 'data-behind', String(behind));
    goLive.hidden = state !== 'playing' && state !== 'interrupted';
    goLive.disabled = !behind;
    setText(
      liveText,
      latency === null
        ? 'Live'
        : behind
          ? `Go live · ${formatLatency(latency)} behind`
          : `Live · ${formatLatency(latency)}`,
    );
    goLive.title = behind ? 'Jump to the live edge' : 'How far the picture is behind the live edge';

    const current = stats.levels[stats.level];
    const size = current?.name.split(' ')[0] ?? '';
    quality.element.hidden = stats.levels.length === 0;
    quality.setCaption(stats.auto ? (size ? `Auto ${size}` : 'Auto') : size);
    audio.element.hidden = (player.hls?.allAudioTracks.length ?? 0) < 2;
    audio.setCaption(trackLabel(player.hls?.audioTracks[player.hls.audioTrack]));
    const seen = state === 'playing' || state === 'interrupted';
    const facts = [
      latency === null ? '' : `${formatLatency(latency)} behind live`,
      size,
      stats.stalls === 1 ? '1 stall' : `${stats.stalls} stalls`,
    ];
    setText(summary, seen ? facts.filter(Boolean).join(' · ') : '');
    if (!statsPanel.hidden) showStats();
  }

  function showOverlay(state: PlayerState): void {
    const text: Partial<Record<PlayerState, [string, string]>> = {
      waiting: [
        'Waiting for the publisher',
        `${name} is not live. The picture starts here by itself when it is.`,
      ],
      interrupted: ['The publisher went away', 'The picture goes on by itself when it is back.'],
      ended: ['The stream has ended', 'If it starts again, it plays here.'],
      unsupported: [
        'This browser cannot play the stream',
        'It has neither Media Source Extensions nor HLS of its own.',
      ],
    };
    const [title, detail] = text[state] ?? ['', ''];
    setAttribute(overlay, 'data-shown', String(title !== ''));
    if (overlay.dataset['title'] === title) return;
    overlay.dataset['title'] = title;
    replaceChildren(overlay);
    if (title) add(overlay, h('h2', {}, title), h('p', {}, detail));
    if (state === 'ended')
      add(
        overlay,
        h('button', { class: 'button', type: 'button', onclick: () => location.reload() }, 'Try again'),
      );
  }

  function showStats(): void {
    const s = player.stats();
    const level = s.levels[s.level];
    const rows: [string, string][] = [
      ['Behind live', s.latency === null ? '–' : formatLatency(s.latency)],
      ['hls.js aims at', s.targetLatency === null ? '–' : formatLatency(s.targetLatency)],
      ['Since capture', s.sinceCapture === null ? '–' : formatLatency(s.sinceCapture)],
      ['Buffer', formatLatency(s.buffered)],
      ['Part target', s.partTarget === null ? 'no parts' : formatLatency(s.partTarget)],
      [
        'Level',
        level
          ? `${level.width}×${level.height}, ${formatBitrate(level.bitrate)}${s.auto ? ', auto' : ''}`
          : '–',
      ],
      ['Throughput', formatBitrate(player.hls?.bandwidthEstimate ?? Number.NaN)],
      ['Stalls', String(s.stalls)],
      ['Dropped frames', String(s.droppedFrames)],
    ];
    const clock = readClock(video);
    if (clock !== null) rows.splice(3, 0, ['Glass to glass', formatLatency((Date.now() - clock) / 1000)]);
    replaceChildren(
      statsPanel,
      ...rows.map(([label, value]) => h('div', {}, h('dt', {}, label), h('dd', {}, value))),
    );
  }

  function qualityChoices() {
    const { hls } = player;
    if (!hls) return [];
    const { levels, auto } = player.stats();
    const group = hls.audioTracks[hls.audioTrack]?.groupId;
    // Each rendition is there once for every sound group; only those of the present one are choices of quality.
    const own = levels.filter(({ index }) => !group || hls.levels[index]?.audioGroups?.includes(group));
    return [
      {
        label: 'Auto',
        selected: auto,
        choose: () => {
          hls.loadLevel = -1;
          show();
        },
      },
      ...(own.length > 0 ? own : levels)
        .sort((a, b) => b.height - a.height || b.bitrate - a.bitrate)
        .map(({ index, name: label }) => ({
          label,
          selected: !auto && hls.loadLevel === index,
          choose: () => {
            // loadLevel, not nextLevel: what is buffered plays out, so that the picture never stops.
            hls.loadLevel = index;
            show();
          },
        })),
    ];
  }

  function audioChoices() {
    const { hls } = player;
    if (!hls) return [];
    const current = hls.audioTracks[hls.audioTrack];
    return hls.allAudioTracks.map((track) => ({
      label: trackLabel(track),
      selected: track.groupId === current?.groupId && track.name === current.name,
      choose: () => {
        hls.setAudioOption(track);
        show();
      },
    }));
  }

  function togglePlay(): void {
    if (video.paused) player.play();
    else video.pause();
    wake();
  }

  function toggleMute(): void {
    touchedSound = true;
    video.muted = !video.muted;
    if (!video.muted && video.volume === 0) video.volume = 1;
    if (video.paused) player.play();
  }

  function toggleFullscreen(): void {
    if (document.fullscreenElement) void document.exitFullscreen();
    else if (stage.requestFullscreen) void stage.requestFullscreen().catch(() => undefined);
    // iPhones give full screen to the video element only.
    else (video as HTMLVideoElement & { webkitEnterFullscreen?: () => void }).webkitEnterFullscreen?.();
  }

  function onKey(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    const target = focused();
    const typing = target?.matches('input:not([type=range]), textarea, select');
    // Space presses the button that has the focus.
    if (typing || (event.key === ' ' && target?.matches('button, a'))) return;
    const action = { ' ': togglePlay, f: toggleFullscreen, m: toggleMute }[event.key.toLowerCase()];
    if (!action) return;
    event.preventDefault();
    action();
    wake();
  }
}

function trackLabel(track: { name: string; groupId: string } | undefined): string {
  if (!track) return '';
  const group = track.groupId.replace(/^group_/, '');
  return track.name.toLowerCase() === group.toLowerCase() ? track.name : `${track.name} (${group})`;
}

function focused(): Element | null {
  return document.activeElement;
}

function key(name: string): HTMLElement {
  return h('kbd', {}, name);
}

function control(name: Parameters<typeof icon>[0], label: string, onclick: () => void): HTMLButtonElement {
  const button = h('button', { class: 'control', type: 'button', onclick });
  swapIcon(button, name, label);
  return button;
}

function swapIcon(button: HTMLButtonElement, name: Parameters<typeof icon>[0], label: string): void {
  if (button.title === label) return;
  button.title = label;
  button.setAttribute('aria-label', label);
  replaceChildren(button, icon(name));
}
