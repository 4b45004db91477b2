// A button with a list of choices above it, by mouse, touch and keyboard (WAI-ARIA menu button pattern).

import { h, icon, replaceChildren, setText, type IconName } from '../ui/dom';

export interface Choice {
  label: string;
  selected: boolean;
  choose: () => void;
}

export class Menu {
  readonly element: HTMLElement;
  private readonly caption = h('span', { class: 'menu-caption' });
  private readonly list = h('div', { class: 'menu-list', role: 'menu', hidden: true });
  private readonly button: HTMLButtonElement;

  constructor(
    name: IconName,
    label: string,
    private readonly choices: () => Choice[],
  ) {
    this.button = h(
      'button',
      {
        class: 'control',
        type: 'button',
        title: label,
        'aria-label': label,
        'aria-haspopup': 'menu',
        'aria-expanded': 'false',
        onclick: () => this.toggle(this.list.hidden),
      },
      icon(name),
      this.caption,
    );
    this.list.setAttribute('aria-label', label);
    this.element = h('div', { class: 'menu' }, this.button, this.list);
    this.element.addEventListener('keydown', (event) => this.onKey(event));
    this.element.addEventListener('focusout', (event) => {
      if (!(event.relatedTarget instanceof Node && this.element.contains(event.relatedTarget)))
        this.toggle(false);
    });
  }

  get isOpen(): boolean {
    return !this.list.hidden;
  }

  setCaption(text: string): void {
    setText(this.caption, text);
  }

  private toggle(open: boolean): void {
    if (open === this.isOpen) return;
    this.list.hidden = !open;
    this.button.setAttribute('aria-expanded', String(open));
    if (!open) return;
    replaceChildren(
      this.list,
      ...this.choices().map(({ label, selected, choose }) =>
        h(
          'button',
          {
            type: 'button',
            role: 'menuitemradio',
            'aria-checked': String(selected),
            tabIndex: -1,
            onclick: () => {
              choose();
              this.toggle(false);
              this.button.focus();
            },
          },
          label,
        ),
      ),
    );
    const first =
      this.list.querySelector<HTMLElement>('[aria-checked="true"]') ?? this.list.firstElementChild;
    if (first instanceof HTMLElement) first.focus();
  }

  private onKey(event: KeyboardEvent): void {
    if (!this.isOpen) return;
    const items = [...this.list.children].filter((each) => each instanceof HTMLElement);
    const at = items.findIndex((each) => each === document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: items.length - 1 }[event.key];
    if (event.key === 'Escape') {
      this.toggle(false);
      this.button.focus();
    } else if (to !== undefined) {
      items[(to + items.length) % items.length]?.focus();
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }
}
