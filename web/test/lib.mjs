// What the browser tests share: a Chromium, the test card's clock, percentiles, and a list of checks that ends with a verdict.
import { existsSync } from 'node:fs';
import { gzipSync } from 'node:zlib';
import { chromium } from 'playwright-core';

const CHROMIUM = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];

export async function launch(more = []) {
  const executablePath = process.env.CHROMIUM ?? CHROMIUM.find((path) => existsSync(path));
  if (!executablePath) throw new Error('these tests need Chromium: apt-get install chromium, or name it in CHROMIUM');
  return chromium.launch({
    executablePath,
    headless: true,
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--disable-background-networking', ...more],
  });
}

/** A page that counts what must not happen: errors, violations of the content security policy, requests to others. */
export async function open(browser, options, origin) {
  const context = await browser.newContext({ viewport: { width: 1360, height: 860 }, locale: 'en-GB', ...options });
  const page = await context.newPage();
  page.complaints = [];
  page.on('pageerror', (error) => page.complaints.push(`error: ${error.message}`));
  page.on('console', (message) => {
    const text = message.text();
    // An answer of 403 or a closed stream is news to the console, not a fault of the page.
    if (message.type() === 'error' && !/Failed to load resource|ERR_/.test(text)) page.complaints.push(text);
  });
  page.on('request', (request) => {
    const url = request.url();
    if (!url.startsWith(origin) && !/^(blob|data):/.test(url)) page.complaints.push(`a request to ${url}`);
  });
  return page;
}

/** Waits until the channel plays. */
export const played = (page) => page.waitForFunction(() => document.querySelector('.stage')?.dataset.state === 'live', null, { timeout: 15_000, polling: 50 });

export function percentile(values, share) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)];
}

/** Compressed size of every file that the page loads, as a server that compresses would send it. */
export async function weigh(browser, url) {
  const context = await browser.newContext();
  const page = await context.newPage();
  const files = [];
  page.on('response', (response) => {
    const path = new URL(response.url()).pathname;
    if (/\/$|\.(html|js|css|svg|woff2)$/.test(path)) {
      files.push(response.body().then((body) => ({ path, gzip: gzipSync(body).length }), () => ({ path, gzip: 0 })));
    }
  });
  await page.goto(url);
  await page.waitForSelector('h1');
  await page.waitForLoadState('load');
  const paint = await page.evaluate(() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null);
  const weighed = await Promise.all(files);
  await context.close();
  return { files: weighed, gzip: weighed.reduce((sum, file) => sum + file.gzip, 0), paintMs: paint };
}

/** Runs in the page: reads the test card's strip (crates/media/src/testcard_code.rs) from what the video shows now. */
export function readCode() {
  const video = document.querySelector('.stage video');
  if (!video || video.videoWidth === 0) return null;
  const [W, H] = [1280, 720];
  window.codeCanvas ??= Object.assign(document.createElement('canvas'), { width: W, height: 64 });
  const draw = window.codeCanvas.getContext('2d', { willReadFrequently: true });
  const top = 648;
  // Only the strip is drawn: reading the whole picture would disturb what is measured.
  draw.drawImage(video, 0, (top / H) * video.videoHeight, video.videoWidth, (64 / H) * video.videoHeight, 0, 0, W, 64);
  const shownAt = Date.now();
  const { data } = draw.getImageData(0, 0, W, 64);
  const level = (row, column) => {
    let sum = 0;
    for (let y = 0; y < 8; y += 1) {
      for (let x = 0; x < 8; x += 1) sum += data[((656 - top + row * 24 + 8 + y) * W + 16 + column * 24 + 8 + x) * 4 + 1];
    }
    return sum / 64;
  };
  const bytes = new Uint8Array(12);
  for (let i = 0; i < 96; i += 1) if (level(Math.floor(i / 48), 2 + (i % 48)) > 128) bytes[i >> 3] |= 128 >> (i & 7);
  let crc = 0xffff;
  for (const byte of bytes.subarray(0, 10)) {
    crc ^= byte << 8;
    for (let i = 0; i < 8; i += 1) crc = (crc & 0x8000 ? (crc << 1) ^ 0x1021 : crc << 1) & 0xffff;
  }
  if (crc !== ((bytes[10] << 8) | bytes[11])) return null;
  const unixMs = bytes.subarray(0, 6).reduce((ms, byte) => ms * 256 + byte, 0);
  return { unixMs, behindMs: shownAt - unixMs };
}

/** Codes read for a while, ms behind the wall clock. */
export async function watchClock(page, seconds) {
  const behind = [];
  const end = Date.now() + seconds * 1000;
  while (Date.now() < end) {
    const code = await page.evaluate(readCode);
    if (code) behind.push(code.behindMs);
    await page.waitForTimeout(200);
  }
  return behind;
}

/** Collects checks; `end` prints all of them and sets the exit code. */
export class Checks {
  #list = [];
  figures = {};
  check(name, ok, detail = '') {
    this.#list.push({ name, ok: Boolean(ok), detail: String(detail) });
    console.log(`${ok ? 'ok  ' : 'FAIL'} ${name}${detail === '' ? '' : `: ${detail}`}`);
  }
  async part(name, run) {
    const began = Date.now();
    try {
      await run();
    } catch (error) {
      this.check(name, false, error.message.split('\n')[0]);
    }
    (this.figures.part_s ??= {})[name] = Math.round((Date.now() - began) / 100) / 10;
  }
  end() {
    const failed = this.#list.filter((check) => !check.ok);
    console.log(JSON.stringify({ ok: failed.length === 0, checks: this.#list.length, failed, figures: this.figures }));
    process.exitCode = failed.length === 0 ? 0 : 1;
  }
}
