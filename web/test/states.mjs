// Each state of a channel in words, with what to do: the node's word is played by the test, the page is the real one.
import { open } from './lib.mjs';

const CASES = [
  { state: 'joining', reason: null, title: 'Looking for viewers who have it' },
  { state: 'waiting', reason: null, title: 'The source is silent' },
  { state: 'ended', reason: null, title: 'The broadcast has ended' },
  { state: 'taken down', reason: 'by order 12/3', title: 'Taken down by the tracker’s operator', detail: 'by order 12/3' },
  { state: 'unreachable', reason: 'no tracker answers', title: 'Nobody can be reached', detail: 'no tracker answers' },
];

export async function states(browser, url, checks) {
  const origin = new URL(url).origin;
  const channel = 'a'.repeat(52);
  const page = await open(browser, {}, origin);
  await page.addInitScript(() => localStorage.setItem('caudal.upload', 'true'));
  for (const [i, { state, reason, title, detail }] of CASES.entries()) {
    const id = `0000000${i}`;
    const session = { id, channel, name: 'State', link: `caudal:${channel}`, role: 'viewer', state: 'joining', reason: null, live: `/s/${id}/live.mp4`, hls: `/s/${id}/hls/index.m3u8`, retention_ms: 60000 };
    await page.route('**/api/v1/sessions', (route) => (route.request().method() === 'POST' ? route.fulfill({ status: 201, json: session }) : route.continue()));
    await page.route('**/live.mp4', () => {}); // It never answers: there is nothing to play.
    await page.route(`**/sessions/${id}/events`, (route) => route.fulfill({ contentType: 'text/event-stream', body: `event: state\ndata: ${JSON.stringify({ state, reason })}\n\n` }));
    await page.goto(i === 0 ? url : `${origin}/#/`);
    await page.goto(`${origin}/#/`);
    await page.getByRole('searchbox').fill(`caudal:${channel}?name=State`);
    await page.getByRole('button', { name: 'Watch this link' }).click();
    const shown = page.locator('.stage [role=status]', { hasText: title });
    await shown.waitFor({ timeout: 5000 }).catch(() => {});
    const text = (await page.locator('.stage .card').textContent().catch(() => '')) ?? '';
    checks.check(`${state} is said in words`, text.includes(title) && (!detail || text.includes(detail)), text.slice(0, 160));
    await page.unrouteAll({ behavior: 'ignoreErrors' });
  }
  await page.goto('about:blank');
  await page.goto(`${origin}/`);
  await page.evaluate(() => sessionStorage.clear());
  await page.goto('about:blank');
  await page.goto(`${origin}/#/`);
  await page.getByRole('searchbox').fill(`caudal:${channel}`);
  await page.getByRole('button', { name: 'Watch this link' }).click();
  await page.getByText('#token=').first().waitFor({ timeout: 5000 });
  checks.check('without the token it says which address to open', true);
  await page.context().close();
}
