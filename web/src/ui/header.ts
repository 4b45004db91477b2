// The bar at the top of each page, and the copy button that several pages need.

import { h, icon, replaceChildren, type IconName } from './dom';
import { themeButton } from './theme';
import logo from './logo.svg';

export function pageHeader(middle: Node | null, ...actions: Node[]): HTMLElement {
  return h(
    'header',
    { class: 'page-header' },
    h(
      'a',
      { class: 'brand', href: '/' },
      h('img', { src: logo, alt: '', width: 28, height: 28 }),
      h('span', {}, 'Fishladder'),
    ),
    h('div', { class: 'page-header-middle' }, middle),
    h('div', { class: 'page-header-actions' }, ...actions, themeButton()),
  );
}

export function linkButton(href: string, name: IconName, text: string, style = 'button'): HTMLAnchorElement {
  return h('a', { class: style, href }, icon(name), h('span', {}, text));
}

export interface Copied {
  text: string;
  /** Said instead of "Copied". */
  done?: string;
}

/** `what` may be made when the button is pressed; what it throws is the button's title then. */
export function copyButton(
  what: string | (() => Promise<Copied>),
  label: string,
  title: string,
): HTMLButtonElement {
  const caption = h('span', {}, label);
  const picture = h('span', { class: 'icon-slot' }, icon('copy'));
  const button = h('button', { class: 'button', type: 'button', title }, picture, caption);
  let back = 0;
  button.addEventListener('click', () => {
    const made = typeof what === 'string' ? Promise.resolve<Copied>({ text: what }) : what();
    const copied = made.then(
      async ({ text, done }) => ((await copy(text)) ? { said: done ?? 'Copied', good: true, title } : FAILED),
      (error: unknown) => ({ ...FAILED, title: error instanceof Error ? error.message : FAILED.title }),
    );
    void copied.then((result) => {
      replaceChildren(picture, icon(result.good ? 'check' : 'error'));
      caption.textContent = result.said;
      button.title = result.title;
      clearTimeout(back);
      back = window.setTimeout(() => {
        replaceChildren(picture, icon('copy'));
        caption.textContent = label;
      }, 1600);
    });
  });
  return button;
}

const FAILED = { said: 'Could not copy', good: false, title: 'The browser gives no access to the clipboard' };

async function copy(text: string): Promise<boolean> {
  if (navigator.clipboard) {
    return navigator.clipboard.writeText(text).then(
      () => true,
      () => false,
    );
  }
  // No clipboard API without TLS on another host than this one: the old way still works there.
  const area = h('textarea', { class: 'off-screen', value: text });
  document.body.append(area);
  area.select();
  const done = document.execCommand('copy');
  area.remove();
  return done;
}
