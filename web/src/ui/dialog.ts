// Modal dialogs on the browser's own <dialog>, which brings focus handling and the Escape key.

import { add, h } from './dom';

export interface DialogSpec {
  title: string;
  body: (Node | string | null | false)[];
  confirm: string;
  danger?: boolean;
  wide?: boolean;
  /** Runs on confirmation; the dialog stays open and shows the text it returns. Null closes. */
  onConfirm?: () => Promise<string | null>;
}

/** True when confirmed. */
export function openDialog(spec: DialogSpec): Promise<boolean> {
  return new Promise((resolve) => {
    let agreed = false;
    const failure = h('p', { class: 'form-error', role: 'alert', hidden: true });
    const confirm = h(
      'button',
      { class: spec.danger ? 'button danger' : 'button primary', type: 'submit' },
      spec.confirm,
    );
    const cancel = h('button', { class: 'button', type: 'button', onclick: () => dialog.close() }, 'Cancel');
    const form = h('form', { class: 'dialog-form' }, h('h2', {}, spec.title), ...spec.body, failure);
    add(form, h('div', { class: 'dialog-actions' }, cancel, confirm));
    const dialog = h(
      'dialog',
      { class: spec.wide ? 'dialog wide' : 'dialog', 'aria-label': spec.title },
      form,
    );
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      void submit();
    });
    const submit = async () => {
      if (spec.onConfirm) {
        confirm.disabled = true;
        const problem = await spec.onConfirm();
        confirm.disabled = false;
        if (problem !== null) {
          failure.textContent = problem;
          failure.hidden = false;
          return;
        }
      }
      agreed = true;
      dialog.close();
    };
    dialog.addEventListener('close', () => {
      dialog.remove();
      resolve(agreed);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}
