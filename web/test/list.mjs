// The list changes by itself, within two seconds, when a channel starts and when it ends.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { open } from './lib.mjs';

const SOON_MS = 2000;

/** `publish`: a command that puts a listed channel called “Newcomer” on the air, as JSON array; it prints a ready line. */
export async function listChanges(browser, url, publish, checks) {
  const page = await open(browser, {}, new URL(url).origin);
  await page.goto(url);
  await page.goto(`${new URL(url).origin}/#/`);
  await page.locator('article').first().waitFor();
  const [program, ...rest] = JSON.parse(publish);
  const child = spawn(program, rest, { stdio: ['ignore', 'pipe', 'inherit'] });
  try {
    const lines = createInterface({ input: child.stdout });
    await once(lines, 'line');
    const card = page.locator('article', { hasText: 'Newcomer' });
    // Ready is said before the first chunk is signed; on the air is what the tracker says.
    const started = Date.now();
    await card.waitFor({ timeout: 15_000 });
    const came = Date.now() - started;
    child.kill('SIGTERM');
    const exited = once(child, 'exit');
    const ended = Date.now();
    await page.waitForFunction(() => ![...document.querySelectorAll('article:not(.gone)')].some((a) => a.textContent.includes('Newcomer')), null, { timeout: 15_000, polling: 50 });
    const went = Date.now() - ended;
    await exited;
    checks.figures.list_ms = { came, went };
    checks.check('the list changes within 2 s', came <= SOON_MS && went <= SOON_MS, JSON.stringify(checks.figures.list_ms));
    checks.check('without a reload', (await page.evaluate(() => performance.getEntriesByType('navigation').length)) === 1);
  } finally {
    child.kill('SIGKILL');
    await page.context().close();
  }
}
