import { expect, test } from 'vitest';
import { parseWarnings } from './notice';

test('only sentences are shown, whatever the server answers', () => {
  expect(parseWarnings({ version: '1', warnings: ['Set http.tls.', '', 7, null] })).toEqual([
    'Set http.tls.',
  ]);
  for (const odd of [null, 'text', 7, [], {}, { warnings: null }, { warnings: 'Set http.tls.' }]) {
    expect(parseWarnings(odd)).toEqual([]);
  }
});
