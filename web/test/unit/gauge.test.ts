// The gauge's arithmetic: what is ahead, what is wanted, how fast to play, how far behind.
import { describe, expect, it } from 'vitest';
import { ahead, beyondHole, credible, delay, enough, HighWater, LowWater, percent, rate, RATE_MAX, RATE_MIN, Timeline, Wanted, WANTED_MAX, WANTED_MIN } from '../../src/player/gauge';

const ranges = (...list: [number, number][]) => ({ length: list.length, start: (i: number) => list[i]![0], end: (i: number) => list[i]![1] });

describe('ahead', () => {
  it('counts what can be played without a hole', () => {
    expect(ahead(ranges([10, 12]), 10.5)).toBeCloseTo(1.5);
    expect(ahead(ranges([10, 12], [12.05, 13]), 11)).toBeCloseTo(2);
    expect(ahead(ranges([10, 12], [13, 14]), 11)).toBeCloseTo(1);
    expect(ahead(ranges([10, 12]), 20)).toBe(0);
    expect(ahead(ranges(), 0)).toBe(0);
  });
  it('finds the far side of a hole', () => {
    expect(beyondHole(ranges([10, 12], [13, 14]), 11.95)).toBe(13);
    expect(beyondHole(ranges([10, 12], [13, 14]), 11)).toBeNull();
    expect(beyondHole(ranges([10, 12]), 11.99)).toBeNull();
  });
});

describe('enough', () => {
  it('is all that is wanted where that is little, and a share of more', () => {
    expect([0.3, WANTED_MIN, 1, 4].map((wanted) => enough(wanted, 0))).toEqual([0.3, WANTED_MIN, WANTED_MIN, 2.4]);
  });
  it('is less for who has waited for long', () => {
    expect(enough(4, 2000)).toBeCloseTo(1.2);
    expect(enough(WANTED_MIN, 2000)).toBeLessThan(0.5);
  });
});

describe('gauge', () => {
  it('is a percentage of what is wanted, and never more than all of it', () => {
    expect([percent(0.25, 0.5), percent(2, 0.5), percent(0, 0.5), percent(1, 0), percent(Number.NaN, 1)]).toEqual([50, 100, 0, 0, 0]);
  });
  it('hurries and slows within what nobody hears', () => {
    expect([rate(0.7, 0.7), rate(0.65, 0.7)]).toEqual([1, 1]);
    expect(rate(1, 0.7)).toBeGreaterThan(1);
    expect(rate(60, 0.7)).toBe(RATE_MAX);
    expect(rate(0.3, 0.7)).toBe(RATE_MIN);
  });
  it('wants more after stalls and less after calm', () => {
    const wanted = new Wanted(0);
    for (let i = 0; i < 100; i += 1) wanted.stalled(1000);
    expect(wanted.seconds).toBe(WANTED_MAX);
    wanted.tick(2000);
    expect(wanted.seconds).toBe(WANTED_MAX);
    wanted.forgive();
    expect(wanted.seconds).toBeLessThan(WANTED_MAX);
    for (let at = 61_001; at < 10_000_000; at += 60_001) wanted.tick(at);
    expect(wanted.seconds).toBe(WANTED_MIN);
  });
  it('follows what the node measures, within what was asked for', () => {
    const wanted = new Wanted(0);
    wanted.tell(1300, 4000, 0);
    expect(wanted.seconds).toBe(1.3);
    wanted.stalled(1000);
    expect(wanted.seconds).toBeCloseTo(1.55);
    wanted.tell(700, 4000, 2000);
    expect(wanted.seconds).toBeCloseTo(1.55);
    wanted.tick(61_001);
    expect(wanted.seconds).toBeCloseTo(1.3);
    wanted.tell(900, 500, 62_000);
    expect(wanted.seconds).toBe(0.5);
    wanted.stalled(63_000);
    expect(wanted.seconds).toBe(0.5);
    wanted.tell(null, undefined, 64_000);
    expect(wanted.seconds).toBe(WANTED_MIN);
    wanted.tell(Number.NaN, -1, 64_000);
    expect(wanted.seconds).toBe(WANTED_MIN);
  });
  it('judges by the lowest of the last readings', () => {
    const low = new LowWater(1000);
    expect([low.add(0, 0.9), low.add(500, 0.5), low.add(1000, 0.8), low.add(1600, 0.8)]).toEqual([0.9, 0.5, 0.5, 0.8]);
    const high = new HighWater(400);
    expect([high.add(0, 0.7), high.add(200, 0.5), high.add(400, 0.6), high.add(601, 0.4)]).toEqual([0.7, 0.7, 0.7, 0.6]);
  });
});

describe('delay', () => {
  it('adds what the edge is behind and what lies between it and the picture', () => {
    expect(delay(200, 61_000, 60.4)).toBeCloseTo(0.8);
  });
  it('is unknown rather than wrong', () => {
    expect(delay(null, 61_000, 60)).toBeNull();
    expect(delay(200, undefined, 60)).toBeNull();
    // Clocks that differ by a little, by minutes and by days.
    expect([delay(-1_500, 61_000, 60.4), delay(-600_000, 61_000, 60), delay(86_400_000, 61_000, 60)].map(credible)).toEqual([0, null, null]);
    expect(credible(null)).toBeNull();
    expect(delay(200, 61_000, Number.NaN)).toBeNull();
  });
});

describe('Timeline', () => {
  it('follows a source that starts anew', () => {
    const timeline = new Timeline();
    expect(timeline.place(100, 100.2)).toBe(0);
    expect(timeline.place(100.2, 100.4)).toBe(0);
    const offset = timeline.place(0, 0.2);
    expect(offset).toBeCloseTo(100.4);
    expect(timeline.place(0.2, 0.4)).toBeCloseTo(offset);
    expect(timeline.media(100.5)).toBeCloseTo(0.1);
    expect(timeline.media(100.3)).toBeCloseTo(100.3);
    expect([timeline.isNewest(100.3), timeline.isNewest(100.5)]).toEqual([false, true]);
  });
  it('reaches back to before it began: what the node kept lies on it, too', () => {
    const timeline = new Timeline();
    timeline.place(100, 100.2);
    expect([timeline.isNewest(80), timeline.media(80)]).toEqual([true, 80]);
  });
  it('leaves small holes where they are', () => {
    const timeline = new Timeline();
    timeline.place(0, 0.2);
    expect(timeline.place(0.6, 0.8)).toBe(0);
  });
});
