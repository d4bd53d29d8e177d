// hls.js reading LL-HLS in a real Chromium for a while, as crates/cli/tests/e2e_readers.rs asks, which has other readers at the
// same node.
//
//   node web/test/readers.mjs --page URL#token=T --name CHANNEL --seconds N
//
// Prints one line of JSON: how it played, media seconds passed, stalls, and the longest that the picture stood still.
import { parseArgs } from 'node:util';
import { launch, open } from './lib.mjs';

const { values: args } = parseArgs({ options: { page: { type: 'string' }, name: { type: 'string' }, seconds: { type: 'string' } } });
const origin = new URL(args.page).origin;
const browser = await launch();
const page = await open(browser, {}, origin);
// A browser that cannot read an answer as it comes: hls.js has to do.
await page.addInitScript(() => { localStorage.setItem('caudal.upload', 'true'); delete globalThis.ReadableStream; });
await page.goto(args.page);
await page.goto(`${origin}/#/`);
await page.locator('article', { hasText: args.name }).locator('button').first().click();
await page.waitForFunction(() => document.querySelector('.stage')?.dataset.state === 'live', null, { timeout: 30_000, polling: 50 });
// What it did to get going is not what is asked.
await page.waitForTimeout(3000);
const told = await page.evaluate(async (seconds) => {
  const stage = document.querySelector('.stage');
  const video = stage.querySelector('video');
  const stallsBefore = Number(stage.dataset.stalls);
  const [begin, mediaBegin] = [performance.now(), video.currentTime];
  let [moved, at, longest] = [begin, mediaBegin, 0];
  while (performance.now() - begin < seconds * 1000) {
    await new Promise((resolve) => setTimeout(resolve, 100));
    const now = performance.now();
    if (video.currentTime !== at) [moved, at] = [now, video.currentTime];
    longest = Math.max(longest, now - moved);
  }
  return {
    how: stage.dataset.how,
    wall_s: (performance.now() - begin) / 1000,
    media_s: video.currentTime - mediaBegin,
    stalls: Number(stage.dataset.stalls) - stallsBefore,
    still_ms: Math.round(longest),
    dropped: video.getVideoPlaybackQuality().droppedVideoFrames,
    buffered_s: video.buffered.length ? video.buffered.end(video.buffered.length - 1) - video.buffered.start(0) : 0,
  };
}, Number(args.seconds));
console.log(JSON.stringify({ ...told, complaints: page.complaints }));
await browser.close();
