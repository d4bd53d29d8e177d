// One streaming response of fragmented MP4 into a SourceBuffer: the fast way to a picture. Owns the MediaSource, what is kept in
// it and what goes; knows nothing of play, pause or the page.
import { BoxError, type Fragment, type Init, Splitter, TooLong } from './boxes';
import { Timeline } from './gauge';
import { mediaPlaylist, segments } from './history';

/** A full buffer is emptied down to this much behind the picture, s. */
const KEEP_LEAST = 5;
/** The buffer is trimmed when this much too long, s. */
const TRIM_SLACK = 5;
/** Segments of the past that are fetched at a time. */
const EARLIER_MAX = 60;
/** What ends so far from where the next begins stands on another timeline, s. */
const BREAK = 1;

/** Why the stream cannot be played this way. */
export class Unsupported extends Error {}
/** The node does not answer, or broke off. */
export class Broken extends Error {}

interface ManagedSource extends MediaSource {
  streaming?: boolean;
}

type SourceClass = { new (): ManagedSource; isTypeSupported(type: string): boolean };

function sourceClass(): { make: SourceClass; managed: boolean } | null {
  const scope = globalThis as unknown as { MediaSource?: SourceClass; ManagedMediaSource?: SourceClass };
  if (scope.MediaSource) return { make: scope.MediaSource, managed: false };
  if (scope.ManagedMediaSource) return { make: scope.ManagedMediaSource, managed: true };
  return null;
}

export class MseStream {
  readonly timeline = new Timeline();
  /** Codecs, as the init segment says. */
  mime = '';
  #source: ManagedSource | null = null;
  #buffer: SourceBuffer | null = null;
  #init: Init | null = null;
  #stop = new AbortController();
  #url = '';
  /** History, with its init data, waits here until the next key frame: appended in between, it would cost the rest of a group of pictures. */
  #earlier: (Init | Fragment)[] = [];

  /**
   * `keep`: seconds kept behind the newest fragment. `onData` is called after each fragment that has become playable.
   */
  constructor(
    private readonly video: HTMLVideoElement,
    private keep: number,
    private readonly onData: (fragment: Fragment) => void,
  ) {}

  static isPossible(): boolean {
    return sourceClass() !== null && typeof ReadableStream !== 'undefined';
  }

  /** Makes ready before there is anything to play: it costs the time that the request costs anyway. */
  async open(): Promise<void> {
    const found = sourceClass();
    if (!found) throw new Unsupported('no MediaSource');
    const source = new found.make();
    this.#source = source;
    if (found.managed) this.video.disableRemotePlayback = true;
    this.#url = URL.createObjectURL(source);
    const opened = new Promise((resolve) => source.addEventListener('sourceopen', resolve, { once: true }));
    this.video.src = this.#url;
    await opened;
  }

  /** Plays `url` until the broadcast ends (returns), the node goes (Broken), or it cannot be (Unsupported). */
  async run(url: string): Promise<void> {
    const signal = this.#stop.signal;
    let answer: Response;
    try {
      answer = await fetch(url, { signal, cache: 'no-store' });
    } catch {
      throw new Broken('nobody answers');
    }
    if (!answer.ok || !answer.body) throw new Broken(`the node answered ${answer.status}`);
    const reader = answer.body.getReader();
    const splitter = new Splitter();
    for (;;) {
      let read: ReadableStreamReadResult<Uint8Array>;
      try {
        read = await reader.read();
      } catch {
        throw new Broken('the connection broke');
      }
      if (read.done) break;
      let pieces: (Init | Fragment)[];
      try {
        pieces = splitter.push(read.value);
      } catch (error) {
        if (error instanceof TooLong) throw new Broken(error.message);
        if (error instanceof BoxError || error instanceof RangeError) throw new Unsupported(error.message);
        throw error;
      }
      for (const piece of pieces) {
        if (signal.aborted) return;
        if (piece.type === 'init') await this.#appendInit(piece);
        else await this.#appendFragment(piece);
      }
      await this.#wanted();
    }
    await this.#idle();
    if (this.#source?.readyState === 'open') this.#source.endOfStream();
  }

  close(): void {
    this.#stop.abort();
    if (this.#url) URL.revokeObjectURL(this.#url);
    if (this.video.src === this.#url) {
      this.video.removeAttribute('src');
      this.video.load();
    }
  }

  get buffered(): TimeRanges | null {
    try {
      return this.#buffer?.buffered ?? null;
    } catch {
      return null;
    }
  }

  /** Gets what the node keeps from before the buffer begins, at least back to `target` (the element's time). */
  async earlier(hls: string, target: number): Promise<void> {
    const begins = this.buffered?.length ? this.buffered.start(0) : null;
    if (begins === null || !this.#init || target >= begins || this.#earlier.length > 0) return;
    const base = hls.slice(0, hls.lastIndexOf('/') + 1);
    const signal = this.#stop.signal;
    const text = async (name: string) => (await fetch(base + name, { signal, cache: 'no-store' })).text();
    const media = mediaPlaylist(await text(hls.slice(base.length)));
    if (!media) return;
    const list = segments(await text(media)).slice(-EARLIER_MAX);
    const offset = this.timeline.offset;
    const found: (Init | Fragment)[] = [];
    const inits = new Map<string, Init>();
    const pieces = async (name: string, init?: Init) => {
      const answer = await fetch(base + name, { signal });
      return answer.ok ? new Splitter(init?.tracks).push(new Uint8Array(await answer.arrayBuffer())) : [];
    };
    /** Where what was found begins, and the init data that it goes with. */
    let reaches = begins - offset;
    let later: Init | null = null;
    for (const { uri, map } of list.reverse()) {
      // Other renditions have other init data.
      if (map && !inits.has(map)) for (const piece of await pieces(map)) if (piece.type === 'init') inits.set(map, piece);
      const init = map ? inits.get(map) : this.#init;
      if (!init) break;
      const fragments = (await pieces(uri, init)).filter((piece): piece is Fragment => piece.type === 'fragment');
      const at = fragments[0]?.start;
      // Gone, or of a broadcast before this one.
      if (at == null || at + offset > (this.timeline.end ?? at + offset) + BREAK) break;
      const usable = fragments.filter((f) => f.end !== null && f.end + offset <= begins + 0.05);
      const [first, last] = [usable[0]?.start, usable.at(-1)?.end];
      // What is there already.
      if (first == null || last == null) continue;
      if (Math.abs(last - reaches) > BREAK) break;
      if (later && later !== init) found.unshift(later);
      found.unshift(...usable);
      [reaches, later] = [first, init];
      if (reaches + offset <= target) break;
    }
    if (!later) return;
    found.unshift(later);
    this.keep = Math.max(this.keep, (this.timeline.end ?? 0) - reaches - offset + TRIM_SLACK);
    this.#earlier = found;
  }

  /** Appends what was; the stream's own init data holds again afterwards. */
  async #appendPast(): Promise<void> {
    const past = this.#earlier;
    const own = this.#init;
    this.#earlier = [];
    for (const piece of past) {
      if (piece.type === 'init') await this.#tell(piece);
      else await this.#append(piece.bytes);
    }
    if (own) await this.#tell(own);
  }

  /** Init data for what is appended next. */
  async #tell(init: Init): Promise<void> {
    if (init.mime !== this.mime) {
      await this.#idle();
      this.#buffer?.changeType(init.mime);
      this.mime = init.mime;
    }
    await this.#append(init.bytes);
  }

  async #appendInit(init: Init): Promise<void> {
    const found = sourceClass();
    if (!found?.make.isTypeSupported(init.mime)) throw new Unsupported(init.mime);
    if (!this.#buffer) {
      if (this.#source?.readyState !== 'open') throw new Broken('the player was closed');
      this.#buffer = this.#source.addSourceBuffer(init.mime);
      this.#buffer.mode = 'segments';
      this.mime = init.mime;
    }
    this.#init = init;
    await this.#tell(init);
  }

  async #appendFragment(fragment: Fragment): Promise<void> {
    const buffer = this.#buffer;
    if (!buffer) return; // A fragment before its init segment says nothing to anybody.
    if (fragment.key && this.#earlier.length > 0) await this.#appendPast();
    if (fragment.start !== null && fragment.end !== null) {
      const offset = this.timeline.place(fragment.start, fragment.end);
      if (buffer.timestampOffset !== offset) {
        await this.#idle();
        buffer.timestampOffset = offset;
      }
    }
    await this.#append(fragment.bytes);
    await this.#trim(this.keep, TRIM_SLACK);
    this.onData(fragment);
  }

  async #append(bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    for (let attempt = 0; ; attempt += 1) {
      await this.#idle();
      if (this.#stop.signal.aborted || this.#source?.readyState !== 'open') return;
      try {
        this.#buffer!.appendBuffer(bytes);
        break;
      } catch (error) {
        const full = error instanceof DOMException && error.name === 'QuotaExceededError';
        if (!full || attempt > 1) throw new Unsupported(String(error));
        // What lies longest behind goes first: half of it, then nearly all.
        this.keep = attempt === 0 ? Math.max(KEEP_LEAST, this.keep / 2) : KEEP_LEAST;
        await this.#trim(this.keep, 0);
      }
    }
    await this.#idle();
  }

  /** Takes away what is more than `keep` behind the newest. */
  async #trim(keep: number, slack: number): Promise<void> {
    const ranges = this.buffered;
    if (!ranges?.length || this.#earlier.length > 0) return;
    const before = ranges.end(ranges.length - 1) - keep;
    if (ranges.start(0) >= before - slack) return;
    await this.#idle();
    if (this.#source?.readyState !== 'open') return;
    this.#buffer!.remove(0, before);
    await this.#idle();
  }

  #idle(): Promise<void> {
    const buffer = this.#buffer;
    if (!buffer?.updating) return Promise.resolve();
    return new Promise((resolve) => buffer.addEventListener('updateend', () => resolve(), { once: true }));
  }

  /** A managed source says when it wants no more for now; the connection then waits with it. */
  #wanted(): Promise<void> {
    const source = this.#source;
    if (!source || source.streaming !== false || this.#init === null || !this.buffered?.length) return Promise.resolve();
    return new Promise((resolve) => source.addEventListener('startstreaming', () => resolve(), { once: true }));
  }
}
