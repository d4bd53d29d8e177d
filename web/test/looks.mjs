// Every place, in light and dark, wide and at phone width, in both languages: axe finds nothing serious, nothing overflows.
// With --shots, the pictures are kept.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { open, played } from './lib.mjs';

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
/** What the map of the network calls the one that everybody is in (crates/cli/tests/e2e_page.rs). */
const NETWORK = 'isp-rio';
/** A report comes once a second. */
const REPORT_MS = 1200;
const SIZES = [{ name: 'wide', width: 1360, height: 860 }, { name: 'phone', width: 390, height: 844 }];

/** Both sizes side by side; one after the other where pictures are taken. */
export async function everywhere(browser, args, checks) {
  const rounds = SIZES.map((size) => async () => {
    for (const colorScheme of ['light', 'dark']) await round(browser, args, checks, size, colorScheme);
  });
  if (args.shots) for (const run of rounds) await run();
  else await Promise.all(rounds.map((run) => run()));
}

async function round(browser, args, checks, size, colorScheme) {
  const locale = colorScheme === 'light' ? 'en-GB' : 'es-ES';
  const options = { viewport: { width: size.width, height: size.height }, colorScheme, locale };
  const look = (page, place) => judge(page, `${place}-${colorScheme}-${size.name}`, args.shots, checks);
  const page = await open(browser, options, new URL(args.page).origin);
  await page.addInitScript(() => localStorage.setItem('caudal.upload', 'true'));
  await page.goto(args.page);
  await page.goto(`${new URL(args.page).origin}/#/`);
  await page.locator('article').first().waitFor();
  await look(page, 'list');
  await page.locator('article', { hasText: args.name }).locator('button').click();
  await played(page);
  await page.waitForTimeout(args.shots ? 12_000 : REPORT_MS);
  const network = await page.locator('.network').innerText().catch(() => '');
  checks.check(`watch-${colorScheme}-${size.name}: one's own network is named, with what stays inside`, network.includes(NETWORK) && /%/.test(network), network.replaceAll('\n', ' '));
  await look(page, 'watch');
  const gauge = await page.locator('.gauge').boundingBox();
  checks.check(`watch-${colorScheme}-${size.name}: the gauge stands at the bottom left of the picture`, gauge && gauge.width > 40 && gauge.x >= 0 && gauge.x + gauge.width < size.width / 2 && gauge.y + gauge.height <= size.height, JSON.stringify(gauge));
  await page.getByRole('button', { name: locale === 'en-GB' ? 'Engineer’s table' : 'Tabla técnica' }).click();
  await look(page, 'engineer');
  for (const width of size.name === 'wide' ? [1360, 1100] : []) {
    await page.setViewportSize({ width, height: size.height });
    const hidden = await page.locator('#engineer .scroll').evaluate((table) => table.scrollWidth - table.clientWidth);
    checks.check(`engineer-${colorScheme}-${width}: the whole table is seen`, hidden <= 0, hidden);
  }
  await page.context().close();
  const desk = await open(browser, options, new URL(args.desk).origin);
  await desk.goto(args.desk);
  await desk.locator('#encoder').waitFor({ timeout: 10_000 });
  await desk.waitForTimeout(args.shots ? 6000 : REPORT_MS);
  const picture = desk.locator('section[aria-labelledby=trace] svg');
  await picture.waitFor({ timeout: 10_000 }).catch(() => {});
  const drawn = await picture.evaluate((svg) => ({
    hops: svg.querySelectorAll('path.hop').length, peers: svg.querySelectorAll('circle.peer').length, sources: svg.querySelectorAll('rect.source').length,
    inside: [...svg.querySelectorAll('text')].every((text) => text.getBoundingClientRect().right <= svg.getBoundingClientRect().right + 1),
  })).catch(() => null);
  checks.check(`desk-${colorScheme}-${size.name}: a traced chunk is drawn from the source to viewers`, drawn && drawn.sources === 1 && drawn.peers >= 1 && drawn.hops >= drawn.peers && drawn.inside, JSON.stringify(drawn));
  if (args.shots) await desk.locator('section[aria-labelledby=trace]').screenshot({ path: `${args.shots}/trace-${colorScheme}-${size.name}.png` });
  await look(desk, 'desk');
  await desk.context().close();
}

/** axe finds nothing serious, nothing overflows, nothing was complained about. */
export async function judge(page, name, shots, checks) {
  if (shots) await page.screenshot({ path: `${shots}/${name}.png` });
  // A string in evaluate is no script of the page: the content security policy stays as it is.
  await page.evaluate(AXE);
  const found = await page.evaluate(async () => {
    const { violations } = await globalThis.axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice'] });
    return violations.filter((v) => v.impact === 'serious' || v.impact === 'critical').map((v) => `${v.id}: ${v.nodes.slice(0, 2).map((n) => n.html.slice(0, 120)).join(' ; ')}`);
  });
  checks.figures.axe = (checks.figures.axe ?? 0) + found.length;
  const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  checks.check(`${name}: axe finds nothing serious`, found.length === 0, found.join(' | '));
  checks.check(`${name}: nothing overflows`, overflow <= 0, overflow);
  checks.check(`${name}: nothing was complained about`, page.complaints.length === 0, page.complaints.slice(0, 3).join(' | '));
}
