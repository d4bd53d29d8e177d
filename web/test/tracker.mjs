// The tracker's own page: it lists and searches, and says how to watch what it cannot play.
import { open } from './lib.mjs';
import { judge } from './looks.mjs';

export async function trackersPage(browser, args, checks) {
  const page = await open(browser, {}, args.tracker);
  await page.goto(`${args.tracker}/`);
  await page.locator('article', { hasText: args.name }).waitFor();
  await judge(page, 'tracker', args.shots, checks);
  const search = page.getByRole('searchbox');
  await search.fill('harb');
  await page.waitForFunction(() => document.querySelectorAll('article').length === 1);
  checks.check('the tracker’s page: search finds one', (await page.locator('article').textContent())?.includes('Harbour'));
  await search.fill('no such channel');
  await page.getByText('is called “no such channel”').waitFor({ timeout: 3000 });
  await search.fill('');
  checks.check('what a tracker cannot do is not shown', (await page.locator('nav a').count()) === 1 && (await page.locator('dialog').count()) === 0);
  await page.locator('article', { hasText: args.name }).locator('button').click();
  const dialog = page.locator('dialog');
  await dialog.waitFor();
  const command = (await dialog.locator('pre').textContent()) ?? '';
  checks.check('pressing a channel there tells how to watch it', /^caudal watch 'caudal:[a-z2-7]{52}\?tracker=\S+'$/.test(command), command);
  await judge(page, 'tracker-how-to', args.shots, checks);
  await page.keyboard.press('Escape');
  await dialog.waitFor({ state: 'detached', timeout: 3000 });
  checks.check('and asks nobody to open anything', (await page.locator('.stage').count()) === 0 && new URL(page.url()).pathname === '/');
  await page.setViewportSize({ width: 390, height: 844 });
  await judge(page, 'tracker-phone', args.shots, checks);
  await page.context().close();
}
