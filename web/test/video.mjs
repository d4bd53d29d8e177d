// What browsers may do to a video: full screen, a floating picture, no sound or no playing before a press, a full buffer.
import { launch, open, played } from './lib.mjs';

export async function video(browser, args, checks) {
  const { origin } = new URL(args.page);
  const page = await open(browser, {}, origin);
  await page.addInitScript(() => {
    localStorage.setItem('caudal.upload', 'true');
    // A full buffer, as often as `full` says.
    const append = SourceBuffer.prototype.appendBuffer;
    const remove = SourceBuffer.prototype.remove;
    Object.assign(window, { full: 0, refused: 0, removed: 0 });
    SourceBuffer.prototype.appendBuffer = function (...bytes) {
      if (window.full > 0) {
        window.full -= 1;
        window.refused += 1;
        throw new DOMException('the quota has been exceeded', 'QuotaExceededError');
      }
      return append.apply(this, bytes);
    };
    SourceBuffer.prototype.remove = function (...range) {
      if (window.refused > 0) window.removed += 1;
      return remove.apply(this, range);
    };
  });
  await page.goto(args.page);
  await page.goto(`${origin}/#/`);
  await page.locator('article', { hasText: args.name }).locator('button').click();
  await played(page);
  // More than is kept at the least is fetched from the node, while the rest is looked at.
  await page.getByRole('button', { name: 'Back 20' }).click();

  await page.keyboard.press('f');
  const full = await page.waitForFunction(() => document.fullscreenElement?.matches('.stage'), null, { timeout: 3000 }).then(() => true, () => false);
  await page.getByRole('button', { name: 'Leave full screen' }).waitFor({ timeout: 3000 }).catch(() => {});
  await page.keyboard.press('f');
  const left = await page.waitForFunction(() => document.fullscreenElement === null, null, { timeout: 3000 }).then(() => true, () => false);
  checks.check('F fills the screen with picture and bar, and leaves it', full && left);

  const floating = page.getByRole('button', { name: 'Picture in picture' });
  await page.evaluate(() => {
    window.floats = [];
    const request = HTMLVideoElement.prototype.requestPictureInPicture;
    HTMLVideoElement.prototype.requestPictureInPicture = function () {
      window.floats.push(this.matches('.stage video'));
      return request.call(this);
    };
  });
  const can = await page.evaluate(() => document.pictureInPictureEnabled);
  if (can) await floating.click();
  const floats = await page.evaluate(() => window.floats);
  checks.check('the floating picture is asked for where there can be one', can ? floats.join() === 'true' : (await floating.count()) === 0, JSON.stringify({ can, floats }));

  await page.keyboard.press('l');
  await page.waitForFunction(() => { const { buffered } = document.querySelector('.stage video'); return buffered.length && buffered.end(buffered.length - 1) - buffered.start(0) > 8; }, null, { timeout: 10_000, polling: 100 });
  await played(page);
  const now = () => page.evaluate(() => ({ at: document.querySelector('.stage video').currentTime, stalls: document.querySelector('.stage').dataset.stalls, state: document.querySelector('.stage').dataset.state, how: document.querySelector('.stage').dataset.how, refused: window.refused, removed: window.removed }));
  const before = await now();
  await page.evaluate(() => { window.full = 2; });
  await page.waitForFunction(() => window.removed > 0, null, { timeout: 3000, polling: 50 }).catch(() => {});
  // Other pages are busy beside this one: a moment of filling is theirs, not the quota's.
  const goesOn = await page.waitForFunction((at) => document.querySelector('.stage').dataset.state === 'live' && document.querySelector('.stage video').currentTime > at, before.at + 1, { timeout: 5000, polling: 50 }).then(() => true, () => false);
  const after = await now();
  checks.check('a full buffer loses what is old, and playing goes on', after.refused === 2 && after.removed > 0 && after.how === 'stream' && goesOn, JSON.stringify({ before, after }));
  checks.check('video: nothing was complained about', page.complaints.length === 0, page.complaints.slice(0, 3).join(' | '));
  await page.context().close();
}

/**
 * A browser that lets nothing sound before a press; and one that lets nothing play. Opened by its address, the page has had none;
 * and looking at it through Playwright counts as one, so that the page says itself when it has tried.
 */
export async function unpressed(args, checks) {
  const browser = await launch(['--autoplay-policy=document-user-activation-required']);
  const { origin } = new URL(args.page);
  const tried = async (init) => {
    const page = await open(browser, {}, origin);
    await page.addInitScript(init);
    const told = page.waitForEvent('console', { predicate: (message) => message.text() === 'tried', timeout: 15_000 });
    await Promise.all([told, page.goto(args.page)]);
    return page;
  };
  const video = (page) => page.evaluate(() => { const v = document.querySelector('.stage video'); return { muted: v.muted, paused: v.paused }; });
  try {
    const page = await tried(() => addEventListener('volumechange', () => console.log('tried'), { capture: true }));
    const sound = page.locator('.stage .sound');
    await sound.waitFor({ timeout: 5000 });
    await played(page);
    const silent = await video(page);
    await sound.click();
    await sound.waitFor({ state: 'detached', timeout: 3000 });
    const pressed = await video(page);
    checks.check('where sound is blocked it plays without, and one press brings it', silent.muted && !silent.paused && !pressed.muted && !pressed.paused, JSON.stringify({ silent, pressed }));

    const strict = await tried(() => {
      const play = HTMLMediaElement.prototype.play;
      let pressed = false;
      addEventListener('click', () => { pressed = true; }, { capture: true });
      HTMLMediaElement.prototype.play = function () {
        if (pressed) return play.call(this);
        if (this.muted) console.log('tried');
        return Promise.reject(new DOMException('a gesture is needed', 'NotAllowedError'));
      };
    });
    const here = strict.getByRole('button', { name: 'Press to play' });
    await here.click({ timeout: 5000 });
    await played(strict);
    const plays = await video(strict);
    checks.check('where playing is blocked it asks for a press, and plays with sound', !plays.paused && !plays.muted && (await here.count()) === 0, JSON.stringify(plays));
    for (const { complaints } of [page, strict]) checks.check('unpressed: nothing was complained about', complaints.length === 0, complaints.slice(0, 3).join(' | '));
  } finally {
    await browser.close();
  }
}
