// The list changes by itself, within two seconds, when a channel starts, ends and is taken down: on a node's page and on the
// tracker's. Who was watching reads why, and what to do.
import { spawn } from 'node:child_process';
import { appendFileSync } from 'node:fs';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { open, played } from './lib.mjs';

const SOON_MS = 2000;
const NAME = 'Newcomer';
const REASON = 'by order 12/3';

/** Puts the channel on the air; `args.publish` is the command as JSON array, which prints a ready line. */
async function start(args) {
  const [program, ...rest] = JSON.parse(args.publish);
  const child = spawn(program, rest, { stdio: ['ignore', 'pipe', 'ignore'] });
  const [line] = await once(createInterface({ input: child.stdout }), 'line');
  // Ready is said before the first chunk is signed; on the air is what the tracker says.
  return { child, exited: once(child, 'exit'), channel: JSON.parse(line).channel, at: Date.now() };
}

/** ms from `since` until each of the pages has the channel in its list, or has it no longer. */
export async function changed(pages, name, isThere, since) {
  const took = pages.map(async (page) => {
    await page.waitForFunction(
      ([name, isThere]) => [...document.querySelectorAll('article:not(.gone)')].some((a) => a.textContent.includes(name)) === isThere,
      [name, isThere],
      { timeout: 15_000, polling: 50 },
    );
    return Date.now() - since;
  });
  return Math.max(...(await Promise.all(took)));
}

export async function listChanges(browser, args, checks) {
  const origin = new URL(args.page).origin;
  const lists = [await open(browser, {}, origin), await open(browser, {}, args.tracker)];
  await lists[0].goto(args.page);
  await lists[0].goto(`${origin}/#/`);
  await lists[1].goto(`${args.tracker}/`);
  for (const page of lists) await page.locator('article').first().waitFor();

  const first = await start(args);
  let again;
  try {
    const came = await changed(lists, NAME, true, first.at);
    const ended = Date.now();
    first.child.kill('SIGTERM');
    const went = await changed(lists, NAME, false, ended);
    await first.exited;

    again = await start(args);
    await changed(lists, NAME, true, again.at);
    const viewer = await open(browser, {}, origin);
    await viewer.addInitScript(() => localStorage.setItem('caudal.upload', 'true'));
    await viewer.goto(args.page);
    await viewer.goto(`${origin}/#/`);
    await viewer.locator('article', { hasText: NAME }).locator('button').click();
    await played(viewer);
    const denied = Date.now();
    appendFileSync(args.deny, `${again.channel} ${REASON}\n`);
    const title = viewer.locator('.stage [role=status]', { hasText: 'Taken down by the tracker’s operator' });
    const told = title.waitFor({ timeout: 15_000 }).then(() => Date.now() - denied);
    const takenDown = await changed(lists, NAME, false, denied);
    checks.figures.list_ms = { came, went, taken_down: takenDown, viewer_told: await told };
    checks.check('the list changes within 2 s: a channel starts, ends, is taken down', Math.max(came, went, takenDown) <= SOON_MS, JSON.stringify(checks.figures.list_ms));
    const card = (await viewer.locator('.stage .card').textContent()) ?? '';
    checks.check('who was watching reads why, and what to do', card.includes(REASON) && card.includes('another tracker') && (await viewer.getByRole('button', { name: 'Back to the list' }).isVisible()), card);
    await viewer.getByRole('button', { name: 'Back to the list' }).click();
    checks.check('and comes back to a list without it', (await viewer.locator('article').first().waitFor(), await viewer.locator('article', { hasText: NAME }).count()) === 0);
    for (const page of lists) {
      checks.check('without a reload', (await page.evaluate(() => performance.getEntriesByType('navigation').length)) === 1);
      checks.check('and without complaints', page.complaints.length === 0, page.complaints.slice(0, 3).join(' | '));
      await page.context().close();
    }
    await viewer.context().close();
  } finally {
    first.child.kill('SIGKILL');
    again?.child.kill('SIGKILL');
  }
}
