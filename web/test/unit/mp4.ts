// Makes small fragmented MP4 by hand, as the node's segmenter lays it out, for the tests of the splitter.
export const bytes = (...parts: (number[] | Uint8Array | string)[]): Uint8Array<ArrayBuffer> => {
  const all = parts.map((part) => (typeof part === 'string' ? [...part].map((c) => c.charCodeAt(0)) : [...part]));
  return Uint8Array.from(all.flat());
};
export const u32 = (...values: number[]) => values.flatMap((v) => [(v >>> 24) & 255, (v >>> 16) & 255, (v >>> 8) & 255, v & 255]);
export const zeros = (n: number) => new Array<number>(n).fill(0);
export const box = (type: string, ...parts: (number[] | Uint8Array)[]) => {
  const inside = bytes(...parts);
  return bytes(u32(inside.length + 8), type, inside);
};

const track = (id: number, handler: string, timescale: number, entry: Uint8Array) =>
  box('trak',
    box('tkhd', zeros(12), u32(id), zeros(68)),
    box('mdia',
      box('mdhd', zeros(12), u32(timescale), zeros(8)),
      box('hdlr', zeros(8), [...handler].map((c) => c.charCodeAt(0)), zeros(13)),
      box('minf', box('stbl', box('stsd', u32(0, 1), entry)))));

const avc1 = box('avc1', zeros(78), box('avcC', [1, 0x64, 0x00, 0x1f, 0xff]));
const esds = box('esds', u32(0), [0x03, 0x19, 0, 0, 0, 0x04, 0x11, 0x40, ...zeros(12), 0x05, 2, 0x11, 0x90]);
const mp4a = box('mp4a', zeros(28), esds);

export const init = (timescale = 90_000) =>
  bytes(box('ftyp', u32(0x69736f36, 0)),
    box('moov',
      track(1, 'vide', timescale, avc1),
      track(2, 'soun', 48_000, mp4a),
      box('mvex', box('trex', u32(0, 1, 1, 3000, 0, 0)), box('trex', u32(0, 2, 1, 1024, 0, 0)))));

/** A fragment of `frames` pictures of 3000 ticks each from `base` ticks on, that reached the source at `unixMs`. */
export const fragment = (base: number, frames: number, key: boolean, unixMs = 1_700_000_000_500, payload = 40) => {
  const ntp = Math.floor(unixMs / 1000) + 2_208_988_800;
  const prft = box('prft', u32(0x01000018, 1, ntp, ((unixMs % 1000) / 1000) * 2 ** 32, 0, base));
  const tfhd = box('tfhd', u32(0x20028, 1, 3000, 0x01010000));
  const tfdt = box('tfdt', u32(0x01000000, Math.floor(base / 2 ** 32), base % 2 ** 32));
  const sizes = Array.from({ length: frames }, () => u32(payload)).flat();
  const trun = key ? box('trun', u32(0x205, frames, 0, 0x02000000), sizes) : box('trun', u32(0x201, frames, 0), sizes);
  return bytes(prft, box('moof', box('mfhd', u32(0, 1)), box('traf', tfhd, tfdt, trun)), box('mdat', zeros(frames * payload)));
};
