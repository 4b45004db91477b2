// The dialog that adds a channel, with what to paste into the publisher's program.

import { isChannelName, putChannel, Problem, type SourceRequest } from '../api';
import { h, replaceChildren } from '../ui/dom';
import { openDialog } from '../ui/dialog';
import { copyButton } from '../ui/header';

type Kind = 'whip' | 'rtsp' | 'rtp';

const EXAMPLE_SDP = `v=0
o=- 0 0 IN IP4 127.0.0.1
s=Fishladder
c=IN IP4 127.0.0.1
t=0 0
m=video 5004 RTP/AVP 96
a=rtpmap:96 H264/90000
a=fmtp:96 packetization-mode=1
m=audio 5006 RTP/AVP 97
a=rtpmap:97 opus/48000/2`;

const KINDS: [Kind, string, string][] = [
  ['whip', 'WHIP', 'OBS or a browser'],
  ['rtsp', 'RTSP', 'pull a camera'],
  ['rtp', 'RTP', 'ffmpeg, GStreamer'],
];

/** The channel's name once it is there, or null. */
export async function addChannelDialog(ladders: readonly string[]): Promise<string | null> {
  const name = h('input', {
    id: 'channel-name',
    required: true,
    maxLength: 64,
    pattern: '[A-Za-z0-9_\\-]{1,64}',
    title: 'Letters, digits, _ and -, at most 64',
    autocomplete: 'off',
    spellcheck: false,
    autofocus: true,
    placeholder: 'main-stage',
  });
  const url = h('input', {
    id: 'rtsp-url',
    type: 'text',
    placeholder: 'rtsp://user:password@10.0.0.17:554/stream1',
    autocomplete: 'off',
    spellcheck: false,
  });
  const sdp = h('textarea', { id: 'rtp-sdp', rows: 9, spellcheck: false, placeholder: EXAMPLE_SDP });
  const ladder = h('input', {
    id: 'ladder',
    list: 'ladders',
    placeholder: 'the default',
    autocomplete: 'off',
  });
  const ladderList = h(
    'datalist',
    { id: 'ladders' },
    ...[...new Set(['passthrough', ...ladders])].map((value) => h('option', { value })),
  );
  const fields = h('div', { class: 'kind-fields' });
  let kind: Kind = 'whip';

  const show = () => {
    const channel = isChannelName(name.value) ? name.value : 'CHANNEL';
    const target = `${location.origin}/whip/${channel}`;
    url.required = kind === 'rtsp';
    sdp.required = kind === 'rtp';
    const parts: Record<Kind, Node[]> = {
      whip: [
        h('p', { class: 'hint' }, 'In OBS: Settings → Stream → Service “WHIP”, then paste:'),
        h(
          'div',
          { class: 'paste' },
          h('span', {}, 'Server'),
          h('code', {}, target),
          copyButton(target, 'Copy', 'Copy the address'),
        ),
        h(
          'div',
          { class: 'paste' },
          h('span', {}, 'Bearer Token'),
          h('em', {}, 'the server’s publish token; empty where none is set'),
        ),
        h(
          'p',
          { class: 'hint' },
          'In OBS’s encoder settings choose H.264, key-frame interval 2 s and no B-frames.',
        ),
      ],
      rtsp: [
        h('label', { class: 'field', for: 'rtsp-url' }, h('span', {}, 'Camera address'), url),
        h(
          'p',
          { class: 'hint' },
          'User name and password, if needed, go into the address. They are never shown again.',
        ),
      ],
      rtp: [
        h('label', { class: 'field', for: 'rtp-sdp' }, h('span', {}, 'Session description (SDP)'), sdp),
        h(
          'p',
          { class: 'hint' },
          'The server listens on the addresses and ports in it. ffmpeg writes one with -sdp_file. ',
          h(
            'button',
            {
              class: 'text-button',
              type: 'button',
              onclick: () => {
                sdp.value = EXAMPLE_SDP;
              },
            },
            'Insert an example',
          ),
        ),
      ],
    };
    replaceChildren(fields, ...parts[kind]);
  };
  name.addEventListener('input', () => {
    if (kind === 'whip') show();
  });
  show();

  const choices = h(
    'fieldset',
    { class: 'segmented' },
    h('legend', {}, 'Source'),
    ...KINDS.map(([value, label, hint]) =>
      h(
        'label',
        {},
        h('input', {
          type: 'radio',
          name: 'kind',
          value,
          checked: value === kind,
          onchange: () => {
            kind = value;
            show();
          },
        }),
        h('span', {}, h('b', {}, label), h('small', {}, hint)),
      ),
    ),
  );

  const agreed = await openDialog({
    title: 'Add a channel',
    wide: true,
    body: [
      h('label', { class: 'field', for: 'channel-name' }, h('span', {}, 'Name'), name),
      choices,
      fields,
      h('label', { class: 'field', for: 'ladder' }, h('span', {}, 'Ladder'), ladder, ladderList),
    ],
    confirm: 'Add channel',
    onConfirm: async () => {
      try {
        const sources: Record<Kind, SourceRequest> = {
          whip: { whip: {} },
          rtsp: { rtsp: { url: url.value.trim() } },
          // RFC 8866, 5: lines end with CRLF; a text area gives bare LF.
          rtp: { rtp: { sdp: sdp.value.trim().replace(/\r?\n/g, '\r\n') + '\r\n' } },
        };
        await putChannel(name.value, sources[kind], ladder.value.trim() || null);
        return null;
      } catch (error) {
        return error instanceof Problem ? error.message : 'The server cannot be reached.';
      }
    },
  });
  return agreed ? name.value : null;
}
