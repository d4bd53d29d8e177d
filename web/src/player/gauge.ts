// The arithmetic of the buffer: how full, how much is wanted, how fast to play, how far behind the source. Pure functions and
// one small piece of memory, so that they can be tested without a browser. Never touches the video element.

/**
 * Least and most that is wanted ahead of the picture, s. The least outlasts the loss of the neighbour that sends most: until
 * others have been asked for what it would have sent, half a second and more goes by.
 */
export const WANTED_MIN = 0.7;
export const WANTED_MAX = 4;
/** What a stall adds to what is wanted, s, and how long without one takes a step back, ms. */
const WANTED_STEP = 0.25;
const CALM_MS = 60_000;
/** Never faster than this, so that nobody hears it; slower to let a thin buffer fill. */
export const RATE_MAX = 1.05;
export const RATE_MIN = 0.97;
/** Further behind than this at the edge, a jump is kinder than minutes of hurry, s. */
export const JUMP_AFTER = 3;

/** Ranges of media time, s. */
export interface Ranges {
  length: number;
  start(i: number): number;
  end(i: number): number;
}

/** What lies ahead of `at` without a hole, s; a gap shorter than `hole` counts as none. */
export function ahead(ranges: Ranges, at: number, hole = 0.1): number {
  let end: number | null = null;
  for (let i = 0; i < ranges.length; i += 1) {
    if (end === null) {
      if (at >= ranges.start(i) - hole && at <= ranges.end(i) + 0.001) end = ranges.end(i);
    } else if (ranges.start(i) <= end + hole) {
      end = ranges.end(i);
    } else break;
  }
  return end === null ? 0 : Math.max(0, end - at);
}

/** The start of the next range when `at` stands before a hole; nothing when it does not. */
export function beyondHole(ranges: Ranges, at: number): number | null {
  for (let i = 0; i < ranges.length; i += 1) {
    const start = ranges.start(i);
    if (start > at) return ahead(ranges, at) < 0.1 ? start : null;
  }
  return null;
}

/** Playing begins when this share of what is wanted is there, or after a while with less, ms; see `enough`. */
const START_SHARE = 0.6;
const START_PATIENCE_MS = 1000;
const START_SHARE_LATE = 0.3;

/**
 * What must lie ahead for playing to begin, s, when the first of it came `waited` ms ago. Never less than the least that is wanted at
 * any time, while there is patience: who joins just after a key frame has nothing else in hand, and needs ten seconds to gain the rest.
 */
export function enough(wanted: number, waited: number): number {
  if (waited > START_PATIENCE_MS) return wanted * START_SHARE_LATE;
  return Math.max(wanted * START_SHARE, Math.min(wanted, WANTED_MIN));
}

/** Filled share of what is wanted, 0 to 100. */
export function percent(buffered: number, wanted: number): number {
  if (!(wanted > 0) || !(buffered > 0)) return 0;
  return Math.min(100, Math.round((buffered / wanted) * 100));
}

/** Playback rate that brings `buffered` (its low-water mark) gently to `wanted`. */
export function rate(buffered: number, wanted: number): number {
  const spare = buffered - wanted;
  if (spare > 0.05) return Math.min(RATE_MAX, 1 + 0.01 * Math.ceil(spare * 20));
  if (spare < -0.15) return RATE_MIN;
  return 1;
}

/** How far the picture is behind the source, s: what the newest part is behind, and what lies between it and the picture. */
export function delay(edgeBehindMs: number | null | undefined, lastMediaMs: number | null | undefined, mediaAt: number): number | null {
  if (edgeBehindMs == null || lastMediaMs == null || !Number.isFinite(mediaAt)) return null;
  return (edgeBehindMs + lastMediaMs) / 1000 - mediaAt;
}

/** A delay that a person can be told; pictures do not come from the future, and nothing is kept for an hour: there a clock is wrong. */
export function credible(seconds: number | null): number | null {
  return seconds !== null && seconds > -1 && seconds < 3600 ? Math.max(0, seconds) : null;
}

/** What is wanted: as much as the node says that arrival is uneven, more after every stall, a little less after a calm minute. */
export class Wanted {
  seconds: number;
  #since: number;
  #least = WANTED_MIN;
  #most = WANTED_MAX;
  constructor(now: number, seconds = WANTED_MIN) {
    this.seconds = seconds;
    this.#since = now;
  }
  stalled(now: number): void {
    this.#set(this.seconds + WANTED_STEP);
    this.#since = now;
  }
  /** It was the source that had stopped. */
  forgive(): void {
    this.#set(this.seconds - WANTED_STEP);
  }
  /** What the node measured, and the most that was asked for. */
  tell(wantedMs: number | null | undefined, mostMs: number | null | undefined, now: number): void {
    const seconds = (ms: number | null | undefined, otherwise: number) =>
      ms != null && Number.isFinite(ms) && ms >= 0 && ms <= 60_000 ? ms / 1000 : otherwise;
    this.#most = seconds(mostMs, WANTED_MAX);
    this.#least = Math.min(seconds(wantedMs, WANTED_MIN), this.#most);
    if (this.seconds < this.#least) this.#since = now;
    this.#set(this.seconds);
  }
  tick(now: number): void {
    if (now - this.#since < CALM_MS || this.seconds <= this.#least) return;
    this.#set(this.seconds - WANTED_STEP);
    this.#since = now;
  }
  #set(seconds: number): void {
    this.seconds = Math.min(this.#most, Math.max(this.#least, seconds));
  }
}

/** The lowest of the last readings: between two parts the buffer falls, and the lowest point is what protects. */
export class LowWater {
  #readings: { at: number; value: number }[] = [];
  constructor(private readonly windowMs = 1500) {}
  add(at: number, value: number): number {
    this.#readings.push({ at, value });
    this.#readings = this.#readings.filter((reading) => at - reading.at <= this.windowMs);
    return Math.min(...this.#readings.map((reading) => reading.value));
  }
  clear(): void {
    this.#readings = [];
  }
}

/** The highest of the last readings: what was filled when the last part had come, which is what a person should read. */
export class HighWater {
  #readings: { at: number; value: number }[] = [];
  constructor(private readonly windowMs = 450) {}
  add(at: number, value: number): number {
    this.#readings.push({ at, value });
    this.#readings = this.#readings.filter((reading) => at - reading.at <= this.windowMs);
    return Math.max(...this.#readings.map((reading) => reading.value));
  }
}

/** Maps the element's time to the stream's: a source that starts anew begins another timeline, which is moved to follow. */
export class Timeline {
  #pieces: { from: number; offset: number }[] = [];
  #end: number | null = null;
  /** The offset to append a fragment with; a jump by more than `jump` seconds is bridged. */
  place(start: number, end: number, jump = 1): number {
    const offset = this.#pieces.at(-1)?.offset ?? 0;
    let use = offset;
    if (this.#end !== null && Math.abs(start + offset - this.#end) > jump) use = this.#end - start;
    if (this.#pieces.length === 0 || use !== offset) this.#pieces.push({ from: start + use, offset: use });
    if (this.#pieces.length > 32) this.#pieces.shift();
    this.#end = end + use;
    return use;
  }
  get end(): number | null {
    return this.#end;
  }
  /** The stream's time at the element's time. */
  media(at: number): number {
    const piece = this.#pieces.findLast((p) => p.from <= at + 0.001) ?? this.#pieces[0];
    return at - (piece?.offset ?? 0);
  }
  /** Whether `at` lies on the newest timeline: only there do the node's figures apply. */
  isNewest(at: number): boolean {
    const last = this.#pieces.at(-1);
    return !last || this.#pieces.length === 1 || at >= last.from - 0.001;
  }
  /** The newest offset. */
  get offset(): number {
    return this.#pieces.at(-1)?.offset ?? 0;
  }
}
