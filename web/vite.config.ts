// How the three pages are built, and how `npm run dev` serves them beside a mock of the server.
import { defineConfig, type Connect, type Plugin } from 'vite';

/** `npm run dev` talks to a real server when FISHLADDER names one, else to dev/mock.mjs. */
const backend = process.env['FISHLADDER'] || undefined;
const mockPort = 8089;

/** The server's own mapping of paths to pages. */
const pages: Connect.NextHandleFunction = (req, _res, next) => {
  const path = req.url ?? '/';
  if (/^\/watch\/[^/]+$/.test(path.split('?')[0] ?? '')) req.url = '/watch.html';
  if (/^\/publish\/[^/]+$/.test(path.split('?')[0] ?? '')) req.url = '/publish.html';
  next();
};

const fishladder: Plugin = {
  name: 'fishladder',
  async configureServer(server) {
    server.middlewares.use(pages);
    if (!backend && !process.env['VITEST']) {
      const mock = (await import('./dev/mock.mjs' as string)) as { start(port: number): Promise<unknown> };
      await mock.start(mockPort);
    }
  },
  // The theme is chosen by script: without this the page would flash in the other one first.
  transformIndexHtml: {
    order: 'post',
    handler: (html) =>
      html.replace(
        '<script type="module" crossorigin',
        '<script type="module" blocking="render" crossorigin',
      ),
  },
};

const proxy = Object.fromEntries(
  ['/api', '/live', '/whip'].map((path) => [path, { target: backend ?? `http://127.0.0.1:${mockPort}` }]),
);

export default defineConfig({
  plugins: [fishladder],
  server: { proxy, host: '127.0.0.1' },
  build: {
    target: 'es2022',
    rollupOptions: { input: ['index.html', 'watch.html', 'publish.html'] },
    // The policy of the pages is `default-src 'self'`: nothing may become a data: URL but pictures.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    // hls.js alone is larger than Vite's default limit.
    chunkSizeWarningLimit: 700,
  },
});
