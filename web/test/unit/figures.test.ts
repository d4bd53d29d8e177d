// What stands beside the charts never contradicts what stands in them.
import { describe, expect, it } from 'vitest';
import { highest, lowest, notAbove } from '../../src/lib/figures';

const points = (...values: (number | null)[]) => values.map((value, at) => ({ at, value }));

describe('figures', () => {
  it('name extremes that hold for this moment, too', () => {
    expect([highest(points(1, null, 2.1), 8.5), highest(points(1, 2.1)), highest(points(null), null), highest([], 3)]).toEqual([8.5, 2.1, null, 3]);
    expect([lowest(points(0.9, null, 1)), lowest(points(0.9), 0.5), lowest([])]).toEqual([0.9, 0.5, null]);
  });
  it('take back what was no standstill', () => {
    expect(notAbove(points(0, 1, 2, null, 2), 1).map((p) => p.value)).toEqual([0, 1, 1, null, 1]);
  });
});
