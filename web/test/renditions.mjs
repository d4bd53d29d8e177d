// A channel in three renditions, and the page's menu of them: another one is pressed in mid-stream, by mouse and by keys, and the
// picture changes its size while it and the sound go on. crates/cli/tests/e2e_renditions.rs starts the channel and this.
//
//   node web/test/renditions.mjs --page URL#token=T [--shots DIR]
//
// Two pages of one node: the one plays the stream as it comes, the other, which cannot read an answer as it comes, through hls.js.
// Prints a line for each check and, last, all of it as JSON. Exit code 1 when one failed.
import { parseArgs } from 'node:util';
import { Checks, launch, open, played } from './lib.mjs';
import { judge } from './looks.mjs';

const { values: args } = parseArgs({ options: { page: { type: 'string' }, shots: { type: 'string' } } });
const { origin } = new URL(args.page);
/** Longest time without the video's clock going on. */
const STALL_MS = 500;
/** Longest time without a new picture: a busy machine leaves some out while the clock goes on. */
const PICTURE_MS = 1000;
/** Between key frames (crates/cli/tests/e2e_renditions.rs). */
const SEGMENT_S = 2;
/** Sound is decoded in bites: none for so long is none. */
const SILENT_MS = 1000;
/** From a press to the first picture of another size: the next key frame, the half segment after it, and what is kept ahead. */
const CHANGE_MS = 8000;

const checks = new Checks();
const browser = await launch();

/** Runs in the page before it: keeps what the video does, each 40 ms and with each picture, and what must not happen. */
function watchVideo() {
  const seen = { at: [], pictures: [], sound: [], sizes: [], wrong: [], waiting: [] };
  window.seen = seen;
  const append = SourceBuffer.prototype.appendBuffer;
  SourceBuffer.prototype.appendBuffer = function (bytes) {
    if (!this.isWatched) this.addEventListener('error', () => seen.wrong.push('a SourceBuffer refused what was appended'));
    this.isWatched = true;
    return append.call(this, bytes);
  };
  const follow = (video) => {
    for (const name of ['error', 'emptied', 'ended', 'stalled']) video.addEventListener(name, () => seen.from && seen.wrong.push(`${name} ${video.error?.message ?? ''}`));
    video.addEventListener('waiting', () => seen.waiting.push(performance.now()));
    const picture = (now, { mediaTime }) => {
      seen.pictures.push([now, mediaTime]);
      video.requestVideoFrameCallback(picture);
    };
    video.requestVideoFrameCallback(picture);
    const moved = (list, value) => { if (list.at(-1)?.[1] !== value) list.push([performance.now(), value]); };
    setInterval(() => {
      moved(seen.at, video.currentTime);
      moved(seen.sound, video.webkitAudioDecodedByteCount);
      moved(seen.sizes, video.videoWidth);
    }, 40);
  };
  const found = new MutationObserver(() => {
    const video = document.querySelector('.stage video');
    if (video) (found.disconnect(), follow(video));
  });
  addEventListener('DOMContentLoaded', () => found.observe(document.body, { childList: true, subtree: true }));
}

/** What was seen since `begin`: longest rests, ms. */
function verdict() {
  const { seen } = window;
  const rest = (list) => {
    const times = [seen.from, ...list.map(([at]) => at).filter((at) => at > seen.from), performance.now()];
    return Math.round(Math.max(...times.slice(1).map((at, i) => at - times[i])));
  };
  const back = seen.at.filter(([at]) => at > seen.from).some(([, value], i, all) => i > 0 && value < all[i - 1][1]);
  return { clock: rest(seen.at), picture: rest(seen.pictures), sound: rest(seen.sound), back, wrong: seen.wrong, waiting: seen.waiting.filter((at) => at > seen.from).length, stalls: Number(document.querySelector('.stage').dataset.stalls), how: document.querySelector('.stage').dataset.how };
}

async function start(more = () => {}, options = {}) {
  const page = await open(browser, options, origin);
  await page.addInitScript(watchVideo);
  await page.addInitScript(() => localStorage.setItem('caudal.upload', 'true'));
  await page.addInitScript(more);
  await page.goto(args.page);
  await played(page);
  await page.locator('.renditions .open').waitFor({ timeout: 10_000 });
  return page;
}

const button = (page) => page.locator('.renditions .open');
const item = (page, name) => page.getByRole('menuitemradio', { name });
const label = async (page) => (await button(page).textContent()).trim();

const SIZE = { wide: { width: 1360, height: 860 }, phone: { width: 390, height: 844 } };

/** Opens the menu: it lies within the player, and nothing is wrong with it. */
async function look(page, name) {
  await button(page).click();
  const [menu, stage] = await Promise.all(['.menu', '.stage'].map((of) => page.locator(of).boundingBox()));
  checks.check(`${name}: the open menu lies within the player`, menu.x >= stage.x && menu.y >= stage.y && menu.x + menu.width <= stage.x + stage.width, JSON.stringify({ menu, stage }));
  await judge(page, name, args.shots, checks);
  await page.keyboard.press('Escape');
}

/** Ms until all of `pages` show pictures of such a width. */
async function shows(pages, wide) {
  const began = Date.now();
  const is = (page) => page.waitForFunction((wide) => document.querySelector('.stage video').videoWidth === wide, wide, { timeout: CHANGE_MS, polling: 40 }).then(() => Date.now() - began, () => null);
  return Promise.all(pages.map(is));
}

const inTime = (times) => times.every((ms) => ms !== null);

await checks.part('the menu', async () => {
  const pages = await Promise.all([start(), start(() => { delete globalThis.ReadableStream; })]);
  const [page] = pages;
  const widest = await shows(pages, 640);
  checks.check('it begins as the command line says', inTime(widest) && (await label(page)) === '360p', await label(page));
  await page.setViewportSize(SIZE.phone);
  await look(page, 'menu-phone');
  await page.setViewportSize(SIZE.wide);
  // Both have found their distance from the source.
  await page.waitForTimeout(500);
  await Promise.all(pages.map((page) => page.evaluate(() => { window.seen.from = performance.now(); })));
  // How two pages begin at once on a busy machine is not what is looked at here.
  const before = await page.evaluate(() => Number(document.querySelector('.stage').dataset.stalls));

  await button(page).click();
  const listed = await page.getByRole('menuitemradio').allTextContents();
  checks.check('the menu names all renditions, the best first, and which one plays', listed.length === 4 && listed.slice(1).every((text, i) => text.includes(['360p', '270p', '180p'][i]) && text.includes('bit/s')) && listed[1].includes('now'), listed.join(' | '));
  await item(page, '180p').click();
  checks.check('what was pressed stands on the button at once', (await label(page)).startsWith('180p') && (await page.getByRole('menu').count()) === 0, await label(page));
  const down = await shows(pages, 320);
  checks.check('a press changes the picture within a few seconds', inTime(down), `${down} ms`);

  // By keys alone: from the button into the menu, through it, out of it, and back to choose.
  await button(page).focus();
  await page.keyboard.press('ArrowDown');
  const at = () => page.evaluate(() => document.activeElement.textContent.trim());
  const first = await at();
  await page.keyboard.press('Escape');
  const closed = (await page.getByRole('menu').count()) === 0 && (await at()).startsWith('180p');
  await page.keyboard.press('Enter');
  await page.keyboard.press('Home');
  await page.keyboard.press('ArrowDown');
  await page.keyboard.press('ArrowDown');
  const there = await at();
  await page.keyboard.press('Enter');
  checks.check('keys open the menu at what is chosen, go through it and leave it', first.includes('180p') && closed && there.includes('270p'), `${first} | ${closed} | ${there}`);
  const up = await shows(pages, 480);
  checks.check('and choose', inTime(up), `${up} ms`);

  await button(page).click();
  await page.locator('.shade').click({ position: { x: 40, y: 200 } });
  checks.check('a press beside the menu closes it, and pauses nothing', (await page.getByRole('menu').count()) === 0 && !(await page.evaluate(() => document.querySelector('.stage video').paused)));
  await button(page).click();
  await item(page, 'Auto').click();
  await page.waitForFunction(() => document.querySelector('.renditions .open').textContent.startsWith('Auto · '), null, { timeout: 3000 }).catch(() => {});
  checks.check('back to auto', (await label(page)).startsWith('Auto · '), await label(page));
  await page.waitForTimeout(300);

  const told = await Promise.all(pages.map((page) => page.evaluate(verdict)));
  checks.figures.change_ms = { down, up };
  checks.figures.rests_ms = told.map(({ how, clock, picture, sound, waiting }) => ({ how, clock, picture, sound, waiting }));
  told.forEach((one, i) => {
    checks.check(`${one.how}: the clock never rests for ${STALL_MS} ms, the picture never for ${PICTURE_MS}`, one.how === ['stream', 'hls.js'][i] && one.clock < STALL_MS && one.picture < PICTURE_MS && !one.back, JSON.stringify(one));
    checks.check(`${one.how}: sound goes on, and nothing was refused`, one.sound < SILENT_MS && one.wrong.length === 0, JSON.stringify(one.wrong));
  });
  // Seen from the other side: what was left in the middle of a segment ends early.
  const list = await (await fetch(`${origin}/hls/live.m3u8`)).text();
  const ends = [...list.matchAll(/#EXTINF:([\d.]+),\n[^#]*\n(?:#EXT-X-PART.*\n)*#EXT-X-DISCONTINUITY\n#EXT-X-MAP/g)].map(([, seconds]) => Number(seconds));
  checks.check('what was left, was left in the middle of a segment', ends.some((seconds) => seconds < SEGMENT_S - 0.2), ends.join(' '));
  checks.check('no standstill was counted', told[0].stalls === before, `${before}, ${told[0].stalls}`);
  const complaints = pages.flatMap((page) => page.complaints);
  checks.check('nothing was complained about', complaints.length === 0, complaints.slice(0, 3).join(' | '));
  await Promise.all(pages.map((page) => page.context().close()));
});

const LOOKS = [['phone', 'dark', 'es-ES'], ['phone', 'light', 'en-GB'], ['wide', 'light', 'en-GB'], ['wide', 'dark', 'es-ES']];
if (args.shots) await checks.part('looks', async () => {
  for (const [size, colorScheme, locale] of LOOKS) {
    const name = `${colorScheme}-${size}-${locale.slice(0, 2)}`;
    const page = await start(undefined, { viewport: SIZE[size], colorScheme, locale });
    const shot = (what) => page.screenshot({ path: `${args.shots}/${what}-${name}.png` });
    await look(page, `menu-${name}`);
    await button(page).click();
    await item(page, '180p').click();
    await shot('changing');
    await shows([page], 320);
    await page.waitForTimeout(1200);
    await button(page).click();
    await shot('changed');
    await item(page, '360p').click();
    await shows([page], 640);
    await page.waitForTimeout(1200);
    await shot('after');
    await page.context().close();
  }
});

await browser.close();
checks.end();
