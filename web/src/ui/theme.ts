// Light or dark: the system's wish unless the person chose otherwise in this browser.

import { h, icon, replaceChildren } from './dom';

type Theme = 'light' | 'dark';

const KEY = 'fishladder.theme';
const system = matchMedia('(prefers-color-scheme: dark)');
const listeners = new Set<() => void>();

export function startTheme(): void {
  const stored = localStorage.getItem(KEY);
  if (stored === 'light' || stored === 'dark') document.documentElement.dataset['theme'] = stored;
  system.addEventListener('change', changed);
}

export function onThemeChange(listener: () => void): void {
  listeners.add(listener);
}

export function themeButton(): HTMLButtonElement {
  const button = h('button', { class: 'icon-button', type: 'button', onclick: flip });
  const show = () => {
    const other = current() === 'dark' ? 'light' : 'dark';
    replaceChildren(button, icon(other === 'dark' ? 'moon' : 'sun'));
    button.setAttribute('aria-label', `Switch to the ${other} theme`);
    button.title = `Switch to the ${other} theme`;
  };
  onThemeChange(show);
  show();
  return button;
}

function current(): Theme {
  const chosen = document.documentElement.dataset['theme'];
  if (chosen === 'light' || chosen === 'dark') return chosen;
  return system.matches ? 'dark' : 'light';
}

function flip(): void {
  const next: Theme = current() === 'dark' ? 'light' : 'dark';
  // Back at the system's wish means following it again.
  if ((next === 'dark') === system.matches) {
    localStorage.removeItem(KEY);
    delete document.documentElement.dataset['theme'];
  } else {
    localStorage.setItem(KEY, next);
    document.documentElement.dataset['theme'] = next;
  }
  changed();
}

function changed(): void {
  for (const listener of listeners) listener();
}
