// Names, descriptions and links as an attacker would write them: they may not run, leave their box, or break the layout.
import { open } from './lib.mjs';

const id = (c) => c.repeat(52);
const LONG = 'W'.repeat(10_000);
const NAMES = [
  '<img src=x onerror="window.pwned=1">',
  '<script>window.pwned=1</script>',
  '\u202E\u2066moc.elgoog\u2069 ',
  LONG,
  `Z${'\u0301\u0489'.repeat(400)}`,
  '"><svg/onload=window.pwned=1>{{constructor.constructor("window.pwned=1")()}}',
];
const DESCRIPTION = `<iframe src="javascript:parent.pwned=1"></iframe>\n${'\u202E'}${'very long '.repeat(1000)}${LONG}`;

function entries() {
  return NAMES.map((name, i) => {
    const channel = id('abcdef'[i]);
    const told = { channel, name, description: DESCRIPTION, language: '"><b>', trackers: ['javascript:window.pwned=1', 'http://127.0.0.1:1'], issued_unix_ms: -1 };
    return { channel, state: 'live', viewers: i === 2 ? '<b>7</b>' : 1e12, name, link: i === 4 ? 'javascript:window.pwned=1' : undefined, descriptor: { descriptor: Buffer.from(JSON.stringify(told)).toString('base64url'), signature: '' } };
  });
}

/** The list, and a session whose name and reason are an attacker's. */
export async function attackers(browser, url, checks) {
  const origin = new URL(url).origin;
  for (const viewport of [{ width: 1280, height: 800 }, { width: 360, height: 740 }]) {
    const page = await open(browser, { viewport }, origin);
    await page.addInitScript(() => localStorage.setItem('caudal.upload', 'true'));
    await page.route('**/channels/events', (route) =>
      route.fulfill({ contentType: 'text/event-stream', body: `event: snapshot\ndata: ${JSON.stringify({ channels: entries(), total: 6 })}\n\n` }));
    const session = { id: '00000000', channel: id('a'), name: NAMES[3], link: `caudal:${id('a')}`, role: 'viewer', state: 'taken down', reason: DESCRIPTION, live: '/s/00000000/live.mp4', hls: '/s/00000000/hls/index.m3u8', retention_ms: 60000 };
    await page.route('**/api/v1/sessions', (route) => (route.request().method() === 'POST' ? route.fulfill({ status: 201, json: session }) : route.continue()));
    await page.goto(url);
    await page.goto(`${origin}/#/`);
    await page.locator('article').nth(5).waitFor();
    const list = await boxes(page);
    await page.locator('article button').first().click();
    await page.locator('.stage').waitFor();
    await page.waitForTimeout(300);
    const watch = await boxes(page);
    const size = `${viewport.width} px wide`;
    checks.check(`an attacker’s words do not run (${size})`, !list.pwned && !watch.pwned && list.foreign === 0 && watch.foreign === 0, JSON.stringify({ list, watch }));
    checks.check(`nor leave their box (${size})`, list.overflow <= 0 && watch.overflow <= 0 && list.escaped === 0 && list.tallest < 420, JSON.stringify({ list, watch }));
    checks.check(`nor turn the text around (${size})`, !list.bidi && !watch.bidi);
    await page.context().close();
  }
}

/** Runs in the page: what got out. */
function boxes(page) {
  return page.evaluate(() => {
    const cards = [...document.querySelectorAll('article')];
    const inside = (card) => {
      const outer = card.getBoundingClientRect();
      return [...card.querySelectorAll('bdi')].every((bdi) => {
        const box = bdi.parentElement.closest('h3, .about').getBoundingClientRect();
        return box.left >= outer.left - 1 && box.right <= outer.right + 1 && box.bottom <= outer.bottom + 1;
      });
    };
    return {
      pwned: Boolean(window.pwned),
      foreign: document.querySelectorAll('main iframe, main script, main img[src="x"], a[href^="javascript"]').length,
      overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
      escaped: cards.filter((card) => !inside(card)).length,
      tallest: Math.max(0, ...cards.map((card) => card.getBoundingClientRect().height)),
      bidi: /[\u202A-\u202E\u2066-\u2069]/.test(document.body.textContent),
    };
  });
}
