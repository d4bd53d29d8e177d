// How far the picture on the screen is behind its source, for `cargo xtask bench glass`, which runs the source and the viewer.
//
//   node web/test/glass.mjs --page URL#token=T --name CHANNEL --seconds N
//
// Prints one line of JSON: each reading of the clock in the picture against the wall clock, ms, and stalls.
import { parseArgs } from 'node:util';
import { launch, open, played, watchClock } from './lib.mjs';

const { values: args } = parseArgs({ options: { page: { type: 'string' }, name: { type: 'string' }, seconds: { type: 'string' } } });
const { origin } = new URL(args.page);
const browser = await launch();
const page = await open(browser, {}, origin);
await page.addInitScript(() => localStorage.setItem('caudal.upload', 'true'));
await page.goto(args.page);
await page.goto(`${origin}/#/`);
await page.locator('article', { hasText: args.name }).locator('button').first().click();
await played(page);
// The edge is reached by speed that nobody hears; what follows is how it stays.
await page.waitForTimeout(8000);
const behind = await watchClock(page, Number(args.seconds));
const stalls = Number(await page.evaluate(() => document.querySelector('.stage').dataset.stalls));
console.log(JSON.stringify({ behind_ms: behind, stalls }));
await browser.close();
