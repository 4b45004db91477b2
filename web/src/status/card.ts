// One channel on the status page. Made once, then updated in place by every poll.

import { deleteChannel, playlistForViewers, Problem, type Channel } from '../api';
import { arrange, h, icon, replaceChildren, setAttribute, setText } from '../ui/dom';
import { openDialog } from '../ui/dialog';
import {
  formatBitrate,
  formatBytes,
  formatCount,
  formatDuration,
  formatFrameRate,
  formatCodec,
} from '../ui/format';
import { copyButton, linkButton } from '../ui/header';
import { Chart, seriesClass } from './chart';
import { History, KIND_WORDS, STATE_WORDS, ingestBitrate, sourceFacts, stateSentence } from './model';
import type { Previews } from './previews';

export class Card {
  readonly element: HTMLElement;
  private readonly pill = h('span', { class: 'pill' });
  private readonly viewers = h('span', { class: 'viewers' });
  private readonly viewersText = h('span');
  private readonly messages = h('ul', { class: 'messages' });
  private readonly video = h('video', {
    muted: true,
    playsInline: true,
    tabIndex: -1,
    'aria-hidden': 'true',
  });
  private readonly caption = h('p', { class: 'picture-caption' });
  private readonly picture = h('div', { class: 'picture' }, this.video, this.caption);
  private readonly facts = h('dl', { class: 'facts' });
  private readonly detail = h('p', { class: 'source-detail' });
  private readonly chart = new Chart();
  private readonly table = h('tbody');
  private readonly media: HTMLElement;
  private readonly rows = new Map<string, { row: HTMLElement; bitrate: HTMLElement; size: HTMLElement }>();
  private readonly footnote = h('p', { class: 'footnote' });
  private readonly publish: HTMLElement;
  private readonly history = new History();
  private shownMessages = '';
  private channel: Channel;

  constructor(
    channel: Channel,
    private readonly previews: Previews,
    onDeleted: (name: string) => void,
  ) {
    this.channel = channel;
    const name = channel.name;
    this.viewers.append(icon('eye'), this.viewersText);
    this.media = h(
      'div',
      { class: 'card-media' },
      this.chart.element,
      h(
        'table',
        { class: 'renditions' },
        h('caption', { class: 'visually-hidden' }, `Renditions of ${name}`),
        h(
          'thead',
          { class: 'visually-hidden' },
          h(
            'tr',
            {},
            ...['Rendition', 'Picture or sound', 'Bit rate'].map((text) => h('th', { scope: 'col' }, text)),
          ),
        ),
        this.table,
      ),
    );
    this.publish = linkButton(`/publish/${name}`, 'camera', 'Publish');
    this.element = h(
      'article',
      { class: 'card', id: `channel-${name}`, tabIndex: -1, 'aria-label': `Channel ${name}` },
      h('header', { class: 'card-header' }, h('h2', {}, name), this.viewers, this.pill),
      this.messages,
      h('div', { class: 'card-top' }, this.picture, this.facts),
      this.detail,
      this.media,
      this.footnote,
      h(
        'footer',
        { class: 'card-actions' },
        linkButton(`/watch/${name}`, 'play', 'Watch'),
        this.publish,
        copyButton(() => playlistForViewers(name), 'Playlist', 'Copy the address that players take'),
        h(
          'button',
          {
            class: 'icon-button quiet-danger',
            type: 'button',
            title: 'Delete this channel',
            'aria-label': `Delete channel ${name}`,
            onclick: () => void this.confirmDelete(onDeleted),
          },
          icon('trash'),
        ),
      ),
    );
    previews.add(this.video, channel, (state) => setAttribute(this.picture, 'data-preview', state));
  }

  update(channel: Channel, now: number): void {
    this.channel = channel;
    setAttribute(this.element, 'data-state', channel.state);
    setAttribute(this.pill, 'data-state', channel.state);
    const since = Number.isFinite(channel.since) ? ` · ${formatDuration((now - channel.since) / 1000)}` : '';
    setText(this.pill, STATE_WORDS[channel.state] + since);
    setText(this.viewersText, formatCount(channel.viewers));
    setAttribute(this.viewers, 'aria-label', `${channel.viewers} viewers`);
    setAttribute(this.viewers, 'title', `${channel.viewers} viewers`);
    this.showMessages();
    setText(this.caption, stateSentence(channel));
    // A browser can't publish where the server pulls a camera or listens for RTP.
    this.publish.hidden = channel.source !== null && channel.source.kind !== 'whip';
    this.showSource();
    this.showRenditions(now);
    this.previews.setLive(this.video, channel.state === 'live');
  }

  matches(filter: string): boolean {
    return this.channel.name.toLowerCase().includes(filter);
  }

  remove(): void {
    this.previews.remove(this.video);
    this.chart.destroy();
    this.element.remove();
  }

  private showMessages(): void {
    const key = JSON.stringify(this.channel.messages);
    if (key === this.shownMessages) return;
    this.shownMessages = key;
    const items = this.channel.messages.map(({ level, text }) =>
      h('li', { class: `message ${level}` }, icon(level), h('span', {}, text)),
    );
    replaceChildren(this.messages, ...items);
    this.messages.hidden = items.length === 0;
  }

  private showSource(): void {
    const { source } = this.channel;
    const kind = source ? (KIND_WORDS[source.kind] ?? source.kind) : '';
    const facts: [string, string][] = source ? [['Source', kind], ...sourceFacts(this.channel)] : [];
    facts.push(['Ladder', this.channel.ladder || '–']);
    arrange(
      this.facts,
      facts.map(([label, value], at) => {
        const existing = this.facts.children[at];
        const row = existing ?? h('div', {}, h('dt'), h('dd'));
        const [dt, dd] = row.children;
        if (dt) setText(dt, label);
        if (dd) setText(dd, value);
        return row;
      }),
    );
    const way = [source?.remote, source?.detail].filter(Boolean).join(' → ');
    setText(this.detail, way);
    this.detail.title = way;
    this.detail.hidden = way === '';
  }

  private showRenditions(now: number): void {
    const { renditions, sessions, workerRestarts } = this.channel;
    this.media.hidden = renditions.length === 0;
    const wanted: HTMLElement[] = [];
    renditions.forEach((rendition, at) => {
      const entry = this.rows.get(rendition.id) ?? this.makeRow(rendition.id);
      const { width, height, frameRate, sampleRate } = rendition;
      const size = width && height ? `${width} × ${height}` : '';
      const rate = frameRate
        ? `${formatFrameRate(frameRate)} fps`
        : sampleRate
          ? `${sampleRate / 1000} kHz`
          : '';
      const how = rendition.suspended ? 'suspended' : rendition.passthrough ? 'as published' : '';
      const codec = rendition.kind === 'audio' ? formatCodec(rendition.codec) : '';
      setText(entry.size, [codec, size, rate, how].filter(Boolean).join(' · '));
      setText(entry.bitrate, formatBitrate(rendition.bitrate));
      entry.row.title = `${formatCodec(rendition.codec)}, segment ${rendition.msn}, ${rendition.segments} segments and ${formatBytes(rendition.retainedBytes)} kept`;
      setAttribute(entry.row, 'class', seriesClass(at));
      wanted.push(entry.row);
    });
    for (const [id, entry] of this.rows) if (!wanted.includes(entry.row)) this.rows.delete(id);
    arrange(this.table, wanted);
    this.history.push(now / 1000, new Map(renditions.map((rendition) => [rendition.id, rendition.bitrate])));
    const moved = this.history.anything();
    this.chart.element.hidden = !moved;
    if (moved)
      this.chart.update(
        this.history,
        renditions.map((rendition) => rendition.id),
      );
    const notes = [
      sessions > 1 ? `${formatCount(sessions)} publisher stays so far` : '',
      workerRestarts > 0 ? `encoder restarted ${workerRestarts} ×` : '',
      ingestBitrate(this.channel) === 0 && this.channel.state === 'live' ? 'nothing is coming in' : '',
    ].filter(Boolean);
    setText(this.footnote, notes.join(' · '));
    this.footnote.hidden = notes.length === 0;
  }

  private makeRow(id: string) {
    const bitrate = h('td', { class: 'number' });
    const size = h('td', { class: 'muted' });
    const name = h('th', { scope: 'row' }, h('span', { class: 'swatch' }), h('span', {}, id));
    const entry = { row: h('tr', {}, name, size, bitrate), bitrate, size };
    this.rows.set(id, entry);
    return entry;
  }

  private async confirmDelete(onDeleted: (name: string) => void): Promise<void> {
    const { name, viewers, state } = this.channel;
    const effects = [
      state === 'live' ? 'its publisher is cut off' : '',
      viewers > 0
        ? `${formatCount(viewers)} ${viewers === 1 ? 'viewer loses' : 'viewers lose'} the stream`
        : '',
    ].filter(Boolean);
    const agreed = await openDialog({
      title: `Delete ${name}?`,
      body: [
        h(
          'p',
          {},
          effects.length > 0
            ? `The channel ends for good: ${effects.join(' and ')}.`
            : 'The channel ends for good.',
        ),
      ],
      confirm: 'Delete channel',
      danger: true,
      onConfirm: async () => {
        try {
          await deleteChannel(name);
          return null;
        } catch (error) {
          return error instanceof Problem ? error.message : 'The server cannot be reached.';
        }
      },
    });
    if (agreed) onDeleted(name);
  }
}
