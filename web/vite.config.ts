// How the page is built: relative URLs (it is also served below /t/TOKEN/), hashed assets, nothing inlined, which the
// content security policy would refuse.
import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vitest/config';

/** `npm run dev` shows the page of a running node, source or tracker: this one. */
const target = process.env.CAUDAL_NODE ?? 'http://127.0.0.1:8080';
// The node answers its own page only: requests that come through here say that they are from it.
const node = { target, changeOrigin: true, headers: { origin: target } };

export default defineConfig({
  base: './',
  plugins: [svelte()],
  build: {
    target: ['chrome100', 'firefox100', 'safari15.4'],
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: true,
  },
  server: { proxy: { '/api': node, '/v1': node, '^/s/': node, '/hls': node, '/live.mp4': node } },
  test: { include: ['test/unit/**/*.test.ts'], environment: 'node' },
});
