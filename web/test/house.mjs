// A node that others in the house can open, by its address on the network and the token in the path; and there, more channels
// than a node takes, of which some reach nobody.
import { open, played, readCode } from './lib.mjs';

const DEAD = ['b', 'c', 'd', 'e'].map((c) => ({ name: `Dead ${c}`, link: `caudal:${c.repeat(51)}a?tracker=http%3A%2F%2F127.0.0.1%3A1&name=Dead%20${c}` }));

export async function house(browser, args, checks) {
  const { origin, pathname } = new URL(args.house);
  for (const path of ['/', '/api/v1/node', '/live.mp4', `/t/${'0'.repeat(32)}/`]) {
    const { status } = await fetch(origin + path, { redirect: 'manual' });
    checks.check(`${path.slice(0, 16)} without the token is refused`, status === 403, status);
  }
  const page = await open(browser, {}, args.house);
  await page.addInitScript(() => localStorage.setItem('caudal.upload', 'true'));
  const list = () => page.evaluate(() => { location.hash = '#/'; });
  await page.goto(args.house);
  await page.locator('article', { hasText: args.name }).locator('button').click();
  await played(page);
  let code = null;
  for (let i = 0; i < 15 && !code; i += 1) code = (await page.waitForTimeout(200), await page.evaluate(readCode));
  checks.check('by the address on the network the list, the player and the picture are there', code && code.behindMs < 5000, `${origin}: ${code?.behindMs} ms behind`);
  checks.check('the token stays in the path', new URL(page.url()).pathname === pathname, page.url().replace(pathname, '/t/T/'));
  // No clipboard beyond this computer without https: the old way has to do.
  await page.getByRole('button', { name: 'Copy link' }).click();
  await page.getByRole('button', { name: 'Copied' }).waitFor({ timeout: 3000 });

  const paste = async ({ link }) => {
    await list();
    await page.getByRole('searchbox').fill(link);
    await page.getByRole('button', { name: 'Watch this link' }).click();
  };
  let first;
  for (const dead of DEAD.slice(0, 3)) {
    await paste(dead);
    await page.waitForFunction(() => /^#\/watch\/[0-9a-f]{8}$/.test(location.hash), null, { timeout: 5000 });
    first ??= await page.evaluate(() => location.hash);
    await page.waitForFunction((name) => document.querySelector('h1')?.textContent === name && document.querySelector('.stage'), dead.name);
  }
  const began = Date.now();
  await paste(DEAD[3]);
  const card = page.locator('.blank .card');
  const leave = card.getByRole('button', { name: `Leave ${DEAD[2].name}` });
  await leave.waitFor({ timeout: 5000 });
  const said = (await card.textContent()) ?? '';
  checks.check('the fifth channel reads the node’s words and what to do', said.includes('4 channels open already') && said.includes('Leave one'), said);
  await leave.click();
  await page.waitForFunction((name) => document.querySelector('h1')?.textContent === name && document.querySelector('.stage'), DEAD[3].name, { timeout: 5000 });
  checks.check('leaving one makes room for it', true);

  await page.evaluate((hash) => { location.hash = hash; }, first);
  await page.locator('.stage [role=status]', { hasText: 'Nobody can be reached' }).waitFor({ timeout: 15_000 });
  const lost = (await page.locator('.stage .card').textContent()) ?? '';
  checks.check('a channel whose tracker does not answer says so, and what to do', lost.includes('127.0.0.1:1') && lost.includes('ask for a link with another one'), lost);
  checks.figures.unreachable_ms = Date.now() - began;
  checks.check('the house’s page: nothing was complained about', page.complaints.length === 0, page.complaints.slice(0, 3).join(' | '));
  await page.context().close();
}
