import { describe, expect, it } from 'vitest';
import type { InputReport } from '../../src/lib/types';
import { chosen, heightName, moved, shares, sorted } from '../../src/lib/renditions';

const all = [
  { id: 2, height: 360, bandwidth_bps: 800_000 },
  { id: 0, height: 1080, bandwidth_bps: 5_000_000 },
  { id: 3, bandwidth_bps: 64_000 },
  { id: 1, height: 720, bandwidth_bps: 2_500_000 },
];

describe('renditions', () => {
  it('stand in the menu with the best first, and are no more than a channel may have', () => {
    expect(sorted(all).map((one) => one.id)).toEqual([0, 1, 2, 3]);
    expect(sorted(undefined)).toEqual([]);
    expect(sorted(Array.from({ length: 99 }, () => all[0]!)).length).toBe(8);
    expect(all.map(heightName)).toEqual(['360p', '1080p', null, '720p']);
  });

  it('are chosen as the node does it', () => {
    const cases: [string | undefined, number | null][] = [
      ['auto', null], [undefined, null], ['1', 1], ['7', null], ['720p', 1], ['900p', 1], ['2160p', 0], ['400p', 2], ['100p', 3], ['p', null],
    ];
    for (const [wanted, id] of cases) expect(chosen(wanted, all), wanted).toBe(id);
    expect(chosen('240p', all.filter((one) => one.height)), 'the lowest where all are higher').toBe(2);
    expect(chosen('720p', [])).toBe(null);
  });

  it('have viewers where those say so, also none', () => {
    const arriving = [0, 1, 2].map((id) => ({ id, bandwidth_bps: 0, input: { height: 1080 >> id, rate_bps: 5e6 / (id + 1) } as InputReport }));
    const told = (counts: { id: number; viewers: number }[] | undefined, of = arriving) => shares(counts, of).map(({ rendition, viewers, share }) => [heightName(rendition), viewers, share]);
    expect(told([{ id: 0, viewers: 3 }, { id: 2, viewers: 1 }])).toEqual([['1080p', 3, 0.75], ['540p', 0, 0], ['270p', 1, 0.25]]);
    expect(told(undefined)).toEqual([]);
    expect(told([])).toEqual([]);
    expect(told([{ id: 0, viewers: 3 }], arriving.slice(0, 1)), 'one alone is nothing to tell').toEqual([]);
    expect(shares([{ id: 0, viewers: 3 }], undefined)).toEqual([]);
  });

  it('are gone through by keys, around both ends', () => {
    expect(['ArrowDown', 'ArrowUp', 'Home', 'End', 'x'].map((key) => moved(key, 0, 4))).toEqual([1, 3, 0, 3, null]);
    expect(moved('ArrowDown', 3, 4)).toBe(0);
    expect(moved('Home', 0, 0)).toBe(null);
  });
});
