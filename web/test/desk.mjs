// The desk's buttons on real broadcasts: what is secret stays so until it is asked for, listing reaches the tracker's list, and
// stop stops.
import { changed } from './list.mjs';
import { open, played } from './lib.mjs';

const SOON_MS = 2000;

/** A desk that waits for an encoder: server, stream key, copying. */
export async function studio(browser, args, checks) {
  const { origin } = new URL(args.studio);
  const page = await open(browser, { permissions: ['clipboard-read', 'clipboard-write'] }, origin);
  await page.goto(args.studio);
  await page.locator('#encoder').waitFor();
  await page.getByText('Waiting for the encoder').waitFor({ timeout: 5000 });
  const copied = async (what) => {
    const button = page.getByRole('button', { name: `Copy: ${what}` });
    await button.click();
    await page.locator('button', { hasText: 'Copied' }).first().waitFor({ timeout: 3000 });
    return page.evaluate(() => navigator.clipboard.readText());
  };
  const server = await copied('Server');
  checks.check('the desk: the server’s address is copied', /^rtmp:\/\/127\.0\.0\.1:\d+\/live$/.test(server), server);
  const key = await copied('Stream key');
  const shows = () => page.evaluate((key) => document.documentElement.outerHTML.includes(key), key);
  const before = await shows();
  await page.getByRole('button', { name: 'Show', exact: true }).click();
  const asked = await shows();
  await page.getByRole('button', { name: 'Hide', exact: true }).click();
  checks.check('the stream key stands there only while it is asked for', key.length >= 16 && !before && asked && !(await shows()));
  const link = await copied('Link of the channel');
  checks.check('the link is copied', link.startsWith('caudal:') && link.includes('tracker='), link.slice(0, 12));
  checks.check('the studio’s desk: nothing was complained about', page.complaints.length === 0, page.complaints.slice(0, 3).join(' | '));
  await page.context().close();
}

/** Unlists, lists and ends the broadcast that everybody watches: nothing comes after this. */
export async function lastWords(browser, args, checks) {
  const opened = [args.tracker, args.page, args.desk].map((url) => open(browser, {}, new URL(url).origin));
  const [list, viewer, desk] = await Promise.all(opened);
  await viewer.addInitScript(() => localStorage.setItem('caudal.upload', 'true'));
  const watching = async () => {
    await viewer.goto(args.page);
    await viewer.goto(`${new URL(args.page).origin}/#/`);
    await viewer.locator('article', { hasText: args.name }).locator('button').click();
  };
  await Promise.all([watching(), list.goto(`${args.tracker}/`), desk.goto(args.desk)]);
  const box = desk.getByRole('checkbox');
  await box.waitFor();
  await changed([list], args.name, true, Date.now());
  // Its viewers have watched for a minute by now, and said how it goes.
  const health = list.locator('article', { hasText: args.name }).locator('.health');
  const word = await health.textContent({ timeout: 5000 }).catch(() => 'nothing');
  checks.check('the list says how the channel goes', ['smooth', 'strained'].includes(word), word);
  const unlisted = await (box.uncheck(), changed([list], args.name, false, Date.now()));
  const listed = await (box.check(), changed([list], args.name, true, Date.now()));
  checks.figures.listed_ms = { unlisted, listed };
  checks.check('the desk’s switch changes the tracker’s list within 2 s', Math.max(unlisted, listed) <= SOON_MS, JSON.stringify(checks.figures.listed_ms));

  await played(viewer);
  const dialog = desk.getByRole('dialog');
  await desk.getByRole('button', { name: 'Stop the broadcast' }).click();
  await dialog.getByRole('button', { name: 'Go on' }).click();
  await dialog.waitFor({ state: 'hidden', timeout: 3000 });
  checks.check('stop asks first, and “Go on” stops nothing', (await list.locator('article', { hasText: args.name }).count()) === 1);
  await desk.getByRole('button', { name: 'Stop the broadcast' }).click();
  await dialog.getByRole('button', { name: 'Stop', exact: true }).click();
  const stopped = Date.now();
  const gone = changed([list], args.name, false, stopped);
  await desk.getByRole('status').getByText('The broadcast has ended.').first().waitFor({ timeout: 5000 });
  await viewer.locator('.stage [role=status]', { hasText: 'The broadcast has ended' }).waitFor({ timeout: 15_000 });
  const told = Date.now() - stopped;
  checks.figures.stopped_ms = { list: await gone, viewer: told };
  checks.check('stop ends it: the list within 2 s, and viewers’ pages say so', (await gone) <= SOON_MS && told < 8000, JSON.stringify(checks.figures.stopped_ms));
  const complaints = [list, viewer, desk].flatMap((page) => page.complaints);
  checks.check('the end: nothing was complained about', complaints.length === 0, complaints.slice(0, 3).join(' | '));
}
