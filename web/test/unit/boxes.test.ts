// The splitter gives whole pieces whatever the cuts, reads what a player needs, and refuses what cannot be.
import { describe, expect, it, vi } from 'vitest';
import { BOX_LEN_MAX, BoxError, type Fragment, type Init, readInit, Splitter, TooLong } from '../../src/player/boxes';
import { box, bytes, fragment, init, u32, zeros } from './mp4';

const stream = () => bytes(init(), fragment(0, 6, true), fragment(18_000, 6, false));

describe('Splitter', () => {
  it('gives the same pieces however the bytes are cut', () => {
    const whole = stream();
    const expected = new Splitter().push(whole);
    expect(expected.map((piece) => piece.type)).toEqual(['init', 'fragment', 'fragment']);
    expect(bytes(...expected.map((piece) => piece.bytes))).toEqual(whole);
    for (const step of [1, 7, 64, 301]) {
      const splitter = new Splitter();
      const pieces = [];
      for (let at = 0; at < whole.length; at += step) pieces.push(...splitter.push(whole.slice(at, at + step)));
      expect(pieces).toEqual(expected);
    }
  });

  it('reads codecs and timescales', () => {
    const [first] = new Splitter().push(init(12_800)) as [Init];
    expect(first.mime).toBe('video/mp4; codecs="avc1.64001f,mp4a.40.2"');
    expect(first.tracks.map((t) => [t.id, t.kind, t.timescale])).toEqual([[1, 'video', 12_800], [2, 'audio', 48_000]]);
  });

  it('reads times, key frames and the source’s clock', () => {
    const base = 2 ** 33 + 9000; // a broadcast that has lasted for more than a day
    const [, a, b] = new Splitter().push(bytes(init(), fragment(base, 6, true), fragment(base + 18_000, 3, false))) as [Init, Fragment, Fragment];
    expect(a.start).toBeCloseTo(base / 90_000, 6);
    expect(a.end! - a.start!).toBeCloseTo(0.2, 6);
    expect(b.start).toBeCloseTo(a.end!, 6);
    expect([a.key, b.key]).toEqual([true, false]);
    expect(a.unixMs).toBeCloseTo(1_700_000_000_500, 0);
  });

  it('goes on with an init segment that came another way', () => {
    const [piece] = new Splitter(readInit(init()).tracks).push(fragment(90_000, 6, true)) as [Fragment];
    expect(piece.start).toBe(1);
  });

  it('copies what it holds once, however small the reads are', () => {
    const payload = 4096;
    const whole = bytes(init(), fragment(0, 6, true, undefined, payload));
    const set = vi.spyOn(Uint8Array.prototype, 'set');
    const splitter = new Splitter();
    let pieces = 0;
    for (let at = 0; at < whole.length; at += 16) pieces += splitter.push(whole.subarray(at, at + 16)).length;
    const copied = set.mock.calls.reduce((sum, [from]) => sum + from.length, 0);
    set.mockRestore();
    expect(pieces).toBe(2);
    // Beside the pieces themselves only headers, once for each read that brings none yet.
    expect(copied).toBeLessThan(whole.length * 1.1);
  });

  it('refuses small boxes without end', () => {
    const splitter = new Splitter();
    const free = box('free', zeros(1000));
    const many = bytes(...new Array<Uint8Array>(1000).fill(free));
    expect(() => { for (let i = 0; i < 20; i += 1) splitter.push(many); }).toThrow(TooLong);
  });

  it('refuses impossible and endless boxes at once', () => {
    for (const head of [u32(4), u32(BOX_LEN_MAX + 1), u32(0)]) {
      expect(() => new Splitter().push(bytes(head, 'mdat'))).toThrow(BoxError);
    }
    expect(BOX_LEN_MAX).toBe(16 * 1024 * 1024);
    expect(() => new Splitter().push(bytes(u32(BOX_LEN_MAX + 1), 'mdat'))).toThrow(TooLong);
  });

  it('throws nothing but errors of its own on damaged bytes', () => {
    const whole = stream();
    let seed = 1;
    for (let round = 0; round < 2000; round += 1) {
      const damaged = whole.slice();
      for (let i = 0; i < 4; i += 1) {
        seed = (Math.imul(seed, 1_664_525) + 1_013_904_223) >>> 0;
        damaged[seed % damaged.length] = seed >>> 24;
      }
      try {
        new Splitter().push(damaged);
      } catch (error) {
        // A DataView says RangeError where a table ends too early; the player treats both alike.
        expect(error instanceof BoxError || error instanceof RangeError).toBe(true);
      }
    }
  });

  it('refuses a moov without anything to play', () => {
    expect(() => readInit(box('moov', box('mvhd', zeros(100))))).toThrow(BoxError);
    expect(() => readInit(box('free', zeros(4)))).toThrow(BoxError);
  });
});
