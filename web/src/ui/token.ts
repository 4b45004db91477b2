// Bearer tokens: kept for this tab only, asked for when the server wants one.

import { h } from './dom';
import { openDialog } from './dialog';

/** `admin` manages channels, `publish` may send media. */
export type TokenKind = 'admin' | 'publish';

const key = (kind: TokenKind) => `fishladder.token.${kind}`;
const pending = new Map<TokenKind, Promise<string | null>>();

export function storedToken(kind: TokenKind): string | null {
  return sessionStorage.getItem(key(kind));
}

/** Forgets a token that the server refused, unless another has taken its place meanwhile. */
export function forgetToken(kind: TokenKind, refused: string): void {
  if (storedToken(kind) === refused) sessionStorage.removeItem(key(kind));
}

/** Asks for a token; all who wait for the same kind share one dialog. Null: the person closed it. */
export function requestToken(kind: TokenKind, refused: boolean): Promise<string | null> {
  const shared = pending.get(kind) ?? ask(kind, refused).finally(() => pending.delete(kind));
  pending.set(kind, shared);
  return shared;
}

async function ask(kind: TokenKind, refused: boolean): Promise<string | null> {
  const input = h('input', {
    type: 'password',
    id: 'token',
    name: 'token',
    required: true,
    autofocus: true,
    autocomplete: 'off',
    spellcheck: false,
  });
  const what = kind === 'admin' ? 'Managing channels and devices' : 'Publishing';
  const agreed = await openDialog({
    title: kind === 'admin' ? 'Admin token needed' : 'Publish token needed',
    body: [
      h(
        'p',
        {},
        `${what} on this server needs its ${kind} token. It stays in this tab and is forgotten with it.`,
      ),
      refused && h('p', { class: 'form-error', role: 'alert' }, 'The server did not accept that token.'),
      h('label', { class: 'field', for: 'token' }, h('span', {}, 'Token'), input),
    ],
    confirm: 'Use token',
  });
  const token = input.value.trim();
  if (!agreed || token === '') return null;
  sessionStorage.setItem(key(kind), token);
  return token;
}
