// What an operator should mend at the server as a whole, in the server's own sentences, above everything else.

import './notice.css';
import { authorized } from '../api';
import { h, icon, replaceChildren } from '../ui/dom';

/** Such things change with the configuration or by the day. */
const POLL_MS = 60_000;
/** After a failure: the token may have been given since. */
const RETRY_MS = 5000;
const TIMEOUT_MS = 6000;

/** The sentences of `GET /api/v1/server`. */
export function parseWarnings(json: unknown): string[] {
  const list = typeof json === 'object' && json !== null && 'warnings' in json ? json.warnings : null;
  if (!Array.isArray(list)) return [];
  return list.filter((text): text is string => typeof text === 'string' && text !== '');
}

/** A list that keeps itself up to date while someone looks, and is hidden while there is nothing to say. */
export function serverNotice(): HTMLElement {
  const list = h('ul', { class: 'notices', 'aria-label': 'Notices about this server', hidden: true });
  let shown = '[]';
  let timer = 0;
  const poll = async (): Promise<void> => {
    clearTimeout(timer);
    let next = POLL_MS;
    try {
      // Without asking for the token: the channels do that.
      const init = { cache: 'no-store', signal: AbortSignal.timeout(TIMEOUT_MS) } as const;
      const warnings = parseWarnings(await (await authorized('admin', '/api/v1/server', init, false)).json());
      const now = JSON.stringify(warnings);
      if (now !== shown) {
        shown = now;
        replaceChildren(list, ...warnings.map((text) => h('li', {}, icon('warning'), h('span', {}, text))));
        list.hidden = warnings.length === 0;
      }
    } catch {
      // Not reached, not authorized, or a server of before: the page says so elsewhere.
      next = RETRY_MS;
    }
    clearTimeout(timer);
    if (!document.hidden) timer = window.setTimeout(() => void poll(), next);
  };
  document.addEventListener('visibilitychange', () => {
    clearTimeout(timer);
    if (!document.hidden) void poll();
  });
  void poll();
  return list;
}
