// What the player does and what it shows of it: when to play, hold, hurry, jump and go back. Owns the video element's transport;
// leaves the bytes to `mse.ts` and `fallback.ts`, and words to the page.
import { settings } from '../lib/settings';
import type { NodeGauge } from '../lib/types';
import { playHls, type Fallback } from './fallback';
import { ahead, beyondHole, credible, delay, enough, HighWater, JUMP_AFTER, LowWater, percent, rate, Wanted } from './gauge';
import { Broken, MseStream, Unsupported } from './mse';

/** `opening`: nothing has come; `filling`: it comes, but not enough; `gone`: the node does not answer; `failed`: no way to play. */
export type Phase = 'opening' | 'filling' | 'playing' | 'ended' | 'gone' | 'failed';

const TICK_MS = 200;
/** The first fragments come from the last key frame on; after this the picture moves to the edge, ms. */
const SETTLE_MS = 350;
const SETTLE_SPARE = 0.25;
/** Closer to the edge than this counts as live, s. */
const LIVE_WITHIN = 2.5;
/** Pauses before the node is asked again, ms. */
const RETRY_MS = [300, 600, 1200, 2500, 5000];
/** A stall is taken back when the source turns out to have stopped within this, ms. */
const BLAME_MS = 8000;
/** A source that starts anew makes the figures wrong for a moment; what lasts longer is a clock, ms. */
const CLOCK_PATIENCE_MS = 4000;
/** Seconds kept for going back. */
const KEEP_S = 60;

export class Player {
  phase = $state<Phase>('opening');
  buffered = $state(0);
  wanted = $state(0);
  behind = $state<number | null>(null);
  /** The delay that the clocks tell cannot be. */
  clockIsWrong = $state(false);
  paused = $state(false);
  /** The viewer went to another place, and the picture is not there yet. */
  fetching = $state(false);
  following = $state(true);
  /** The browser wanted silence before a gesture. */
  hushed = $state(false);
  /** The browser wanted a gesture even for silence. */
  blocked = $state(false);
  muted = $state(settings.muted());
  volume = $state(settings.volume());
  stalls = $state(0);
  /** What can be seen again: from, to and the picture's place, s of the element's time. */
  from = $state(0);
  to = $state(0);
  at = $state(0);
  /** When the first picture stood there, ms after `start`. */
  firstPictureMs = $state<number | null>(null);
  how = $state<'stream' | 'hls.js' | 'hls' | null>(null);
  mime = $state('');
  problem = $state('');

  percent = $derived(percent(this.buffered, this.wanted));

  #video: HTMLVideoElement | null = null;
  #stream: MseStream | null = null;
  #fallback: Fallback | null = null;
  #wanted = new Wanted(performance.now());
  #low = new LowWater();
  #high = new HighWater();
  #holding = true;
  #firstDataAt = 0;
  #settled = false;
  #startedAt = 0;
  #playingSince = 0;
  #timer: ReturnType<typeof setInterval> | undefined;
  #retry: ReturnType<typeof setTimeout> | undefined;
  #tries = 0;
  #gauge: NodeGauge | null = null;
  #gaugeAt = 0;
  #silent = false;
  #blamed: number | null = null;
  #urls = { live: '', hls: '' };
  #off = new AbortController();
  #wantedAt: number | null = null;
  #seeks = 0;
  #credibleAt = performance.now();

  /** Begins; `startedAt` is when the viewer asked for it (performance.now()). */
  async start(video: HTMLVideoElement, live: string, hls: string, keepMs: number, startedAt: number): Promise<void> {
    this.#video = video;
    this.#urls = { live, hls };
    this.#startedAt = startedAt;
    this.#keep = Math.min(120, Math.max(10, (keepMs || KEEP_S * 1000) / 1000));
    video.volume = this.volume;
    video.muted = this.muted;
    this.#listen(video);
    this.#timer = setInterval(() => this.#tick(), TICK_MS);
    await this.#open();
  }

  #keep = KEEP_S;

  async #open(): Promise<void> {
    const video = this.#video;
    if (!video || this.#off.signal.aborted) return;
    if (!MseStream.isPossible()) return this.#fallBack('');
    this.#holding = true;
    this.#settled = false;
    this.#firstDataAt = 0;
    this.#low.clear();
    const stream = new MseStream(video, this.#keep, () => this.#onData());
    this.#stream = stream;
    this.how = 'stream';
    try {
      await stream.open();
      await stream.run(this.#urls.live);
      if (this.#stream !== stream) return;
      this.#release();
    } catch (error) {
      if (this.#stream !== stream) return;
      if (error instanceof Unsupported) await this.#fallBack(error.message);
      else if (error instanceof Broken) this.#again();
      else throw error;
    }
  }

  #again(): void {
    this.phase = 'gone';
    this.#stream?.close();
    this.#stream = null;
    const pause = RETRY_MS[Math.min(this.#tries, RETRY_MS.length - 1)];
    this.#tries += 1;
    this.#retry = setTimeout(() => void this.#open(), pause);
  }

  async #fallBack(why: string): Promise<void> {
    const video = this.#video;
    if (!video) return;
    this.#stream?.close();
    this.#stream = null;
    const failed = (reason: string) => {
      this.problem = reason || why;
      this.phase = 'failed';
    };
    this.#fallback = await playHls(video, this.#urls.hls, failed);
    if (this.#off.signal.aborted) return this.#fallback?.close();
    if (!this.#fallback) return failed(why);
    this.how = this.#fallback.kind;
    this.#holding = false;
    await this.#play();
  }

  #listen(video: HTMLVideoElement): void {
    const on = (name: string, handle: () => void) => video.addEventListener(name, handle, { signal: this.#off.signal });
    on('waiting', () => this.#onWaiting());
    on('playing', () => {
      if (this.#playingSince === 0) this.#playingSince = performance.now();
      if (this.phase !== 'ended') this.phase = 'playing';
    });
    on('pause', () => {
      if (!this.#holding && !video.ended && video.paused) this.paused = true;
    });
    on('play', () => (this.paused = false));
    on('ended', () => {
      this.phase = 'ended';
      this.#forgive();
    });
    on('volumechange', () => {
      this.volume = video.volume;
      this.muted = video.muted;
      if (!video.muted) this.hushed = false;
    });
    on('error', () => {
      // The decoder gave up: begin anew from the next key frame.
      if (this.#stream && video.error) this.#again();
    });
    on('loadeddata', () => (this.firstPictureMs ??= performance.now() - this.#startedAt));
  }

  #onData(): void {
    const video = this.#video;
    const ranges = this.#stream?.buffered;
    if (!video || !ranges?.length) return;
    this.#tries = 0;
    this.mime = this.#stream!.mime;
    if (this.#firstDataAt === 0) {
      this.#firstDataAt = performance.now();
      if (this.phase === 'opening' || this.phase === 'gone') this.phase = 'filling';
      video.currentTime = ranges.start(0);
    }
    if (this.#holding) this.#maybeBegin();
  }

  /** Ahead of the picture, s. */
  #ahead(): number {
    const video = this.#video;
    const ranges = this.#stream ? this.#stream.buffered : video?.buffered;
    return video && ranges ? ahead(ranges, video.currentTime) : 0;
  }

  #maybeBegin(): void {
    const waited = performance.now() - this.#firstDataAt;
    if (this.#ahead() >= enough(this.#wanted.seconds, waited)) this.#release();
  }

  #release(): void {
    if (!this.#holding) return;
    this.#holding = false;
    this.#low.clear();
    if (!this.paused) void this.#play();
  }

  async #play(): Promise<void> {
    const video = this.#video;
    if (!video) return;
    try {
      await video.play();
      this.blocked = false;
    } catch (error) {
      if (!(error instanceof DOMException) || error.name !== 'NotAllowedError') return;
      if (video.muted) {
        this.blocked = true;
        return;
      }
      video.muted = true;
      this.hushed = true;
      await video.play().catch(() => (this.blocked = true));
    }
  }

  #onWaiting(): void {
    const video = this.#video;
    if (!video || video.seeking || this.#holding || this.phase === 'ended') return;
    const hole = this.#stream?.buffered && beyondHole(this.#stream.buffered, video.currentTime);
    if (hole != null) {
      video.currentTime = hole + 0.01;
      return;
    }
    if (this.#ahead() > 0.3) return;
    this.phase = 'filling';
    const long = performance.now() - this.#playingSince > 500;
    // A source that is silent is no stall of ours; and running out while far behind is the end of what is kept.
    if (this.#playingSince > 0 && long && !this.#silent) {
      this.stalls += 1;
      this.#wanted.stalled(performance.now());
      this.#blamed = performance.now();
    }
    if (this.#stream) {
      this.#holding = true;
      this.#firstDataAt = performance.now();
      video.pause();
    }
  }

  #tick(): void {
    const video = this.#video;
    if (!video) return;
    const now = performance.now();
    const ranges = this.#stream ? this.#stream.buffered : video.buffered;
    this.#wanted.tick(now);
    this.wanted = this.#wanted.seconds;
    this.at = video.currentTime;
    this.fetching = this.#wantedAt !== null || (video.seeking && !this.following);
    if (ranges?.length) {
      this.from = ranges.start(0);
      this.to = ranges.end(ranges.length - 1);
    }
    const filled = this.#ahead();
    this.buffered = this.#high.add(now, filled);
    if (this.#stream) this.#steer(video, now, filled);
    const told = this.#delay(video, now);
    this.behind = credible(told);
    if (told === null || this.behind !== null) this.#credibleAt = now;
    this.clockIsWrong = now - this.#credibleAt > CLOCK_PATIENCE_MS;
    if (this.phase === 'filling' && !video.paused && filled > 0.3 && video.readyState >= 3) this.phase = 'playing';
  }

  #steer(video: HTMLVideoElement, now: number, filled: number): void {
    if (this.#holding) {
      if (this.#firstDataAt > 0) this.#maybeBegin();
      return;
    }
    const hole = this.#stream?.buffered && beyondHole(this.#stream.buffered, video.currentTime);
    if (hole != null && !video.seeking && this.#wantedAt === null) video.currentTime = hole + 0.01;
    if (this.#wantedAt !== null) return this.#reach(video);
    if (video.currentTime < this.from && this.to > 0) video.currentTime = this.from + 0.1;
    if (this.paused || !this.following || this.phase === 'ended') {
      if (video.playbackRate !== 1) video.playbackRate = 1;
      if (this.to - video.currentTime < this.#wanted.seconds + 0.5 && !this.paused) this.following = true;
      return;
    }
    const low = this.#low.add(now, filled);
    if (!this.#settled && now - this.#firstDataAt > SETTLE_MS) {
      this.#settled = true;
      if (filled > this.#wanted.seconds + SETTLE_SPARE) return this.#toEdge(video);
    }
    if (low > this.#wanted.seconds + JUMP_AFTER) return this.#toEdge(video);
    const wish = this.#silent ? 1 : rate(low, this.#wanted.seconds);
    if (video.playbackRate !== wish) video.playbackRate = wish;
  }

  #toEdge(video: HTMLVideoElement): void {
    this.#low.clear();
    this.following = true;
    this.#wantedAt = null;
    video.currentTime = Math.max(this.from, this.to - this.#wanted.seconds - 0.1);
  }

  #delay(video: HTMLVideoElement, now: number): number | null {
    const gauge = this.#gauge;
    if (!gauge) return null;
    const age = now - this.#gaugeAt;
    if (this.#stream) {
      const { timeline } = this.#stream;
      if (!this.#stream.buffered?.length || !timeline.isNewest(video.currentTime)) return null;
      // The report is a moment old: the source went on meanwhile, and so did the picture.
      const edge = gauge.edge_behind_ms == null ? null : gauge.edge_behind_ms + age;
      return delay(edge, gauge.last_part_media_ms, timeline.media(video.currentTime));
    }
    const shown = this.#fallback?.shownUnixMs();
    if (shown == null || gauge.last_part_unix_ms == null || gauge.edge_behind_ms == null) return null;
    return (gauge.edge_behind_ms + age + gauge.last_part_unix_ms - shown) / 1000;
  }

  /** What the node says about its newest part. */
  tell(gauge: NodeGauge | null | undefined, silent: boolean): void {
    this.#silent = silent;
    // The buffer runs out before the node knows that the source has stopped: then it was no stall.
    if (silent) this.#forgive();
    if (!gauge) return;
    this.#gauge = gauge;
    this.#gaugeAt = performance.now();
    this.#wanted.tell(gauge.wanted_ms, gauge.wanted_most_ms, this.#gaugeAt);
  }

  /** What ran out because the source stopped or ended was no standstill. */
  #forgive(): void {
    if (this.#blamed === null || performance.now() - this.#blamed > BLAME_MS) return;
    this.stalls -= 1;
    this.#wanted.forgive();
    this.#blamed = null;
  }

  /** The stream's own timeline at the picture, ms: what probes compare. */
  get mediaMs(): number | null {
    return this.#stream && this.#video ? this.#stream.timeline.media(this.#video.currentTime) * 1000 : null;
  }

  toggle(): void {
    const video = this.#video;
    if (!video) return;
    if (this.paused || this.blocked) {
      this.paused = false;
      // The press is the gesture that sound waited for, too.
      if (this.blocked && this.hushed) video.muted = false;
      if (video.currentTime < this.from) video.currentTime = this.from + 0.1;
      if (this.#holding) this.#maybeBegin();
      else void this.#play();
    } else {
      this.paused = true;
      this.following = false;
      video.pause();
    }
  }

  /** Goes back (negative) or on, s. */
  skip(seconds: number): void {
    const video = this.#video;
    if (video) this.seek(video.currentTime + seconds);
  }

  seek(to: number): void {
    const video = this.#video;
    if (!video || this.phase === 'opening') return;
    const edge = this.to - this.#wanted.seconds;
    if (to >= edge) return this.live();
    this.following = false;
    if (to < this.from && this.#stream) {
      this.fetching = true;
      // Not here, but the node keeps more: fetched, it comes in at the next key frame.
      this.#wantedAt = Math.max(0, to);
      this.#seeks += 1;
      const mine = this.#seeks;
      void this.#stream
        .earlier(this.#urls.hls, this.#wantedAt)
        .catch(() => {})
        .then(() => setTimeout(() => this.#seeks === mine && this.#settle(video), 4000));
      return;
    }
    this.#wantedAt = null;
    video.currentTime = Math.max(this.from, to);
  }

  /** The past has come as far as it goes. */
  #settle(video: HTMLVideoElement): void {
    if (this.#wantedAt === null) return;
    this.#wantedAt = null;
    video.currentTime = this.from + 0.1;
  }

  #reach(video: HTMLVideoElement): void {
    if (this.#wantedAt !== null && this.from <= this.#wantedAt + 0.2) {
      video.currentTime = Math.max(this.from, this.#wantedAt);
      this.#wantedAt = null;
    }
  }

  /** Back to the edge. */
  live(): void {
    const video = this.#video;
    if (!video) return;
    if (this.paused) {
      this.paused = false;
      void this.#play();
    }
    if (this.#stream) this.#toEdge(video);
    else if (video.seekable.length) video.currentTime = video.seekable.end(video.seekable.length - 1) - 1.5;
    this.following = true;
  }

  get isLive(): boolean {
    return this.to > 0 && this.phase !== 'ended' && this.phase !== 'gone' && this.following && !this.paused && this.to - this.at < LIVE_WITHIN + this.wanted;
  }

  setVolume(value: number): void {
    const video = this.#video;
    const volume = Math.min(1, Math.max(0, value));
    this.volume = volume;
    settings.setVolume(volume);
    if (!video) return;
    video.volume = volume;
    if (volume > 0 && video.muted) this.mute(false);
  }

  mute(muted: boolean): void {
    this.muted = muted;
    this.hushed = false;
    settings.setMuted(muted);
    if (this.#video) this.#video.muted = muted;
  }

  close(): void {
    this.#off.abort();
    clearInterval(this.#timer);
    clearTimeout(this.#retry);
    this.#stream?.close();
    this.#stream = null;
    this.#fallback?.close();
    this.#fallback = null;
    this.#video = null;
  }
}
