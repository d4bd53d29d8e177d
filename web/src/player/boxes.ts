// Splits a stream of fragmented MP4 into init segments and fragments, and reads from them what a player must know: codecs,
// timescales, times. ISO/IEC 14496-12 §4.2 (boxes), §8.8 (moof), RFC 6381 (codec strings). Never decodes, never trusts a
// length: what does not fit its parent is an error, and nothing larger than the limit is waited for.

/** Longest box that is waited for, bytes: a part is far smaller. */
export const BOX_LEN_MAX = 16 << 20;
/** Longest piece: what stands before the `mdat` is small beside it. */
const PIECE_LEN_MAX = BOX_LEN_MAX + (1 << 20);
/** Longest header of a box. */
const HEADER_LEN_MAX = 16;
/** Tracks read from one `moov`. */
const TRACKS_MAX = 16;

export interface Track {
  id: number;
  kind: 'video' | 'audio';
  codec: string;
  timescale: number;
  /** What a sample lasts when a fragment does not say, ticks (trex). */
  defaultDuration: number;
}

export interface Init {
  type: 'init';
  bytes: Uint8Array<ArrayBuffer>;
  tracks: Track[];
  /** What a SourceBuffer is made for. */
  mime: string;
}

export interface Fragment {
  type: 'fragment';
  bytes: Uint8Array<ArrayBuffer>;
  /** Decode time of its first sample and where it ends, s on the stream's timeline. Absent when it cannot be read. */
  start: number | null;
  end: number | null;
  /** It begins with a key frame: the decoder can start here. */
  key: boolean;
  /** When its first sample reached the source, ms since the Unix epoch (prft). */
  unixMs: number | null;
}

export class BoxError extends Error {}
/** Longer than any part is: these bytes are no stream of ours, or were damaged on the way. */
export class TooLong extends BoxError {}

interface Header {
  type: string;
  size: number;
  len: number;
}

interface Box {
  type: string;
  /** First byte of the payload, and one past its last. */
  start: number;
  end: number;
}

function boxes(bytes: Uint8Array, start: number, end: number): Box[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const found: Box[] = [];
  let at = start;
  while (at + 8 <= end) {
    const head = header(view, at, end);
    if (!head || at + head.size > end) throw new BoxError(`a box of ${head?.size} bytes at ${at} leaves its parent`);
    found.push({ type: head.type, start: at + head.len, end: at + head.size });
    at += head.size;
  }
  return found;
}

/** A box's type, whole size and header length; `null` when more bytes are needed. */
function header(view: DataView, at: number, end: number): Header | null {
  if (at + 8 > end) return null;
  let size = view.getUint32(at);
  let len = 8;
  const type = String.fromCharCode(view.getUint8(at + 4), view.getUint8(at + 5), view.getUint8(at + 6), view.getUint8(at + 7));
  if (size === 1) {
    if (at + 16 > end) return null;
    size = view.getUint32(at + 8) * 2 ** 32 + view.getUint32(at + 12);
    len = 16;
  }
  if (size < len) throw new BoxError(`a box ${JSON.stringify(type)} of ${size} bytes cannot be`);
  if (size > BOX_LEN_MAX) throw new TooLong(`a box ${JSON.stringify(type)} of ${size} bytes is too long`);
  return { type, size, len };
}

function child(bytes: Uint8Array, parent: Box, type: string, skip = 0): Box | undefined {
  return boxes(bytes, parent.start + skip, parent.end).find((box) => box.type === type);
}

function hex(byte: number): string {
  return byte.toString(16).padStart(2, '0');
}

/** RFC 6381: profile, constraints and level stand in the `avcC`; of AAC the object type in the `esds`. */
function codecString(bytes: Uint8Array, entry: Box): string {
  if (entry.type === 'avc1' || entry.type === 'avc3') {
    const avcc = child(bytes, entry, 'avcC', 78);
    if (!avcc || avcc.end - avcc.start < 4) throw new BoxError('avcC is missing');
    const at = avcc.start;
    return `${entry.type}.${hex(bytes[at + 1]!)}${hex(bytes[at + 2]!)}${hex(bytes[at + 3]!)}`;
  }
  if (entry.type === 'mp4a') {
    const esds = child(bytes, entry, 'esds', 28);
    const type = esds && audioObjectType(bytes.subarray(esds.start + 4, esds.end));
    return `mp4a.40.${type ?? 2}`;
  }
  if (entry.type === 'Opus') return 'opus';
  return entry.type;
}

/** The audio object type in an `esds` (ISO/IEC 14496-1 §7.2.6): descriptors within descriptors, lengths of 7 bits a byte. */
function audioObjectType(bytes: Uint8Array): number | undefined {
  let at = 0;
  const open = (tag: number): boolean => {
    if (bytes[at] !== tag) return false;
    at += 1;
    for (let i = 0; i < 4; i += 1) {
      const byte = bytes[at] ?? 0;
      at += 1;
      if (!(byte & 0x80)) break;
    }
    return true;
  };
  if (!open(0x03)) return undefined;
  const flags = bytes[at + 2] ?? 0;
  at += 3 + (flags & 0x80 ? 2 : 0) + (flags & 0x20 ? 2 : 0);
  if (flags & 0x40) at += 1 + (bytes[at] ?? 0);
  if (!open(0x04)) return undefined;
  at += 13;
  if (!open(0x05)) return undefined;
  const type = (bytes[at] ?? 0) >> 3;
  return type === 31 ? 32 + ((((bytes[at] ?? 0) & 7) << 3) | ((bytes[at + 1] ?? 0) >> 5)) : type || undefined;
}

/** Reads `ftyp` + `moov`. */
export function readInit(bytes: Uint8Array<ArrayBuffer>): Init {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const moov = boxes(bytes, 0, bytes.length).find((box) => box.type === 'moov');
  if (!moov) throw new BoxError('no moov');
  const inside = boxes(bytes, moov.start, moov.end);
  const defaults = new Map<number, number>();
  const mvex = inside.find((box) => box.type === 'mvex');
  for (const trex of mvex ? boxes(bytes, mvex.start, mvex.end) : []) {
    if (trex.type === 'trex' && trex.end - trex.start >= 24) {
      defaults.set(view.getUint32(trex.start + 4), view.getUint32(trex.start + 12));
    }
  }
  const tracks: Track[] = [];
  for (const trak of inside.filter((box) => box.type === 'trak').slice(0, TRACKS_MAX)) {
    const track = readTrack(bytes, view, trak, defaults);
    if (track) tracks.push(track);
  }
  if (tracks.length === 0) throw new BoxError('no track that could be played');
  const kind = tracks.some((track) => track.kind === 'video') ? 'video' : 'audio';
  const mime = `${kind}/mp4; codecs="${tracks.map((track) => track.codec).join(',')}"`;
  return { type: 'init', bytes, tracks, mime };
}

function readTrack(bytes: Uint8Array, view: DataView, trak: Box, defaults: Map<number, number>): Track | null {
  const path = (from: Box | undefined, ...types: string[]) =>
    types.reduce<Box | undefined>((box, type) => box && child(bytes, box, type), from);
  const tkhd = path(trak, 'tkhd');
  const mdia = path(trak, 'mdia');
  const mdhd = path(mdia, 'mdhd');
  const hdlr = path(mdia, 'hdlr');
  const stsd = path(mdia, 'minf', 'stbl', 'stsd');
  if (!tkhd || !mdhd || !hdlr || !stsd) return null;
  if (tkhd.end - tkhd.start < 24 || mdhd.end - mdhd.start < 24 || hdlr.end - hdlr.start < 12) return null;
  const handler = view.getUint32(hdlr.start + 8);
  const kind = handler === 0x76696465 ? 'video' : handler === 0x736f756e ? 'audio' : null;
  const entry = boxes(bytes, stsd.start + 8, stsd.end)[0];
  if (!kind || !entry) return null;
  const id = view.getUint32(tkhd.start + (bytes[tkhd.start] === 1 ? 20 : 12));
  const timescale = view.getUint32(mdhd.start + (bytes[mdhd.start] === 1 ? 20 : 12));
  if (timescale === 0) return null;
  return { id, kind, codec: codecString(bytes, entry), timescale, defaultDuration: defaults.get(id) ?? 0 };
}

/** Where a fragment begins and ends, s, over its tracks: the first track (the picture, if there is one) decides. */
export function fragmentTimes(bytes: Uint8Array, tracks: Track[]): { start: number; end: number; key: boolean } | null {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const moof = boxes(bytes, 0, bytes.length).find((box) => box.type === 'moof');
  if (!moof) return null;
  for (const track of tracks) {
    for (const traf of boxes(bytes, moof.start, moof.end).filter((box) => box.type === 'traf')) {
      const times = trafTimes(bytes, view, traf, track);
      if (times) return times;
    }
  }
  return null;
}

function trafTimes(bytes: Uint8Array, view: DataView, traf: Box, track: Track) {
  const inside = boxes(bytes, traf.start, traf.end);
  const tfhd = inside.find((box) => box.type === 'tfhd');
  const tfdt = inside.find((box) => box.type === 'tfdt');
  if (!tfhd || !tfdt || view.getUint32(tfhd.start + 4) !== track.id) return null;
  const flags = view.getUint32(tfhd.start) & 0xffffff;
  const skip = 8 + (flags & 0x1 ? 8 : 0) + (flags & 0x2 ? 4 : 0);
  const each = flags & 0x8 ? view.getUint32(tfhd.start + skip) : track.defaultDuration;
  const wide = bytes[tfdt.start] === 1;
  const base = wide
    ? view.getUint32(tfdt.start + 4) * 2 ** 32 + view.getUint32(tfdt.start + 8)
    : view.getUint32(tfdt.start + 4);
  const flagsAt = tfhd.start + skip + (flags & 0x8 ? 4 : 0) + (flags & 0x10 ? 4 : 0);
  const usual = flags & 0x20 ? view.getUint32(flagsAt) : 0;
  const truns = inside.filter((box) => box.type === 'trun');
  let ticks = 0;
  for (const trun of truns) ticks += trunDuration(view, trun, each);
  const first = truns[0] ? firstFlags(view, truns[0], usual) : usual;
  return { start: base / track.timescale, end: (base + ticks) / track.timescale, key: (first & NOT_SYNC) === 0 };
}

/** `sample_is_non_sync_sample`. */
const NOT_SYNC = 0x10000;

function firstFlags(view: DataView, trun: Box, usual: number): number {
  const flags = view.getUint32(trun.start) & 0xffffff;
  const at = trun.start + 8 + (flags & 0x1 ? 4 : 0);
  if (flags & 0x4) return view.getUint32(at);
  if (flags & 0x400) return view.getUint32(at + (flags & 0x100 ? 4 : 0) + (flags & 0x200 ? 4 : 0));
  return usual;
}

function trunDuration(view: DataView, trun: Box, each: number): number {
  const flags = view.getUint32(trun.start) & 0xffffff;
  const count = view.getUint32(trun.start + 4);
  if (!(flags & 0x100)) return count * each;
  const stride = 4 * [0x100, 0x200, 0x400, 0x800].filter((bit) => flags & bit).length;
  let at = trun.start + 8 + (flags & 0x1 ? 4 : 0) + (flags & 0x4 ? 4 : 0);
  let ticks = 0;
  for (let i = 0; i < count && at + stride <= trun.end; i += 1, at += stride) ticks += view.getUint32(at);
  return ticks;
}

/** Seconds from 1900 (NTP) to 1970. */
const NTP_OFFSET_S = 2_208_988_800;

function prftMs(bytes: Uint8Array): number | null {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const prft = boxes(bytes, 0, bytes.length).find((box) => box.type === 'prft');
  if (!prft || prft.end - prft.start < 16) return null;
  return (view.getUint32(prft.start + 8) - NTP_OFFSET_S) * 1000 + (view.getUint32(prft.start + 12) / 2 ** 32) * 1000;
}

/** Takes bytes as they come, gives whole init segments (`ftyp`+`moov`) and whole fragments (`…moof`+`mdat`). */
export class Splitter {
  /** What has come and was not given yet, as it came: joined once, when a piece is whole. */
  #held: Uint8Array[] = [];
  #length = 0;
  /** Bytes held that are whole boxes of the piece being gathered. */
  #whole = 0;
  /** The box that is being gathered, once its header is there. */
  #head: Header | null = null;
  #tracks: Track[];

  /** With `tracks` the stream may begin with a fragment: its init segment came another way. */
  constructor(tracks: Track[] = []) {
    this.#tracks = tracks;
  }

  push(bytes: Uint8Array): (Init | Fragment)[] {
    this.#held.push(bytes);
    this.#length += bytes.length;
    const out: (Init | Fragment)[] = [];
    for (;;) {
      this.#head ??= this.#next();
      const head = this.#head;
      if (!head) break;
      // Said by its header, so that nothing too long is waited for.
      if (this.#whole + head.size > PIECE_LEN_MAX) throw new TooLong(`a piece of ${this.#whole + head.size} bytes is longer than any part`);
      if (this.#whole + head.size > this.#length) break;
      this.#whole += head.size;
      this.#head = null;
      if (head.type === 'moov' || head.type === 'mdat') {
        const piece = this.#take(this.#whole);
        this.#whole = 0;
        out.push(head.type === 'moov' ? this.#init(piece) : this.#fragment(piece));
      }
    }
    return out;
  }

  /** The header after the whole boxes, if it is there. */
  #next(): Header | null {
    const bytes = this.#peek(this.#whole, HEADER_LEN_MAX);
    return header(new DataView(bytes.buffer), 0, bytes.length);
  }

  /** Up to `count` bytes from `at` on. */
  #peek(at: number, count: number): Uint8Array<ArrayBuffer> {
    const out = new Uint8Array(Math.max(0, Math.min(count, this.#length - at)));
    let filled = 0;
    let begins = 0;
    for (const held of this.#held) {
      if (filled === out.length) break;
      const from = Math.max(0, at - begins);
      if (from < held.length) {
        const part = held.subarray(from, from + out.length - filled);
        out.set(part, filled);
        filled += part.length;
      }
      begins += held.length;
    }
    return out;
  }

  /** Takes the first `count` bytes out. */
  #take(count: number): Uint8Array<ArrayBuffer> {
    const out = this.#peek(0, count);
    let left = count;
    let gone = 0;
    while (left > 0 && this.#held[gone]!.length <= left) {
      left -= this.#held[gone]!.length;
      gone += 1;
    }
    this.#held.splice(0, gone);
    if (left > 0) this.#held[0] = this.#held[0]!.subarray(left);
    this.#length -= count;
    return out;
  }

  #init(bytes: Uint8Array<ArrayBuffer>): Init {
    const init = readInit(bytes);
    this.#tracks = init.tracks;
    return init;
  }

  #fragment(bytes: Uint8Array<ArrayBuffer>): Fragment {
    const times = fragmentTimes(bytes, this.#tracks);
    return {
      type: 'fragment',
      bytes,
      start: times?.start ?? null,
      end: times?.end ?? null,
      key: times?.key ?? true,
      unixMs: prftMs(bytes),
    };
  }
}
