// The picture of a traced chunk: every row within it, time from left to right, whatever peers say.
import { describe, expect, it } from 'vitest';
import { draw, ROWS_MAX } from '../../src/lib/trace';
import type { TraceRow, TraceView } from '../../src/lib/types';

const row = (more: Partial<TraceRow>): TraceRow => ({
  kind: 'peer', depth: 0, parent: null, peer: 'abcdefghij', count: 0, requested: false, lag_ms: null, travelled_ms: null, hop_ms: null,
  across: false, clock_ms: null, queue_ms: null, way_ms: null, ...more,
});
const view = (rows: TraceRow[]): TraceView => ({
  epoch: 1, number: 496, captured_unix_ms: 0, rows, forged: 0,
  summary: { reported: rows.length, gaps: 0, depth: 1, hop_p50_ms: null, hop_p95_ms: null, lag_max_ms: null },
});

describe('the picture of a trace', () => {
  it('puts later arrivals further right, below whom they came from', () => {
    const { rows, ticks, hidden } = draw(view([
      row({ kind: 'source', lag_ms: 200 }),
      row({ parent: 0, depth: 1, lag_ms: 240, hop_ms: 40, queue_ms: 10 }),
      row({ parent: 1, depth: 2, lag_ms: 400, hop_ms: 160 }),
      row({ kind: 'gap', parent: 0, depth: 1, peer: null, count: 2 }),
      row({ parent: 3, depth: 2, lag_ms: 600, across: true }),
    ]), 600);
    const x = rows.map((drawn) => drawn.x);
    expect(hidden).toBe(0);
    expect(x[0]! < x[1]! && x[1]! < x[2]! && x[2]! < x[4]!).toBe(true);
    expect(x[3]).toBe(x[0]);
    expect(rows[2]!.from).toEqual({ x: x[1], y: rows[1]!.y });
    // 10 of 40 ms.
    expect((rows[1]!.waited! - x[0]!) / (x[1]! - x[0]!)).toBeCloseTo(0.25);
    expect(ticks.map((tick) => tick.ms)).toEqual([200, 300, 400, 500, 600]);
    expect(Math.max(...x)).toBeLessThan(600);
  });

  it('draws what cannot be within the picture, too', () => {
    const odd = view([
      row({ kind: 'source', lag_ms: Number.NaN, depth: Infinity }), row({ parent: 7, lag_ms: -5e9 }), row({ parent: 1, lag_ms: 5e9, queue_ms: 1e12 }),
      row({ parent: 2, lag_ms: 0, queue_ms: -4 }),
    ]);
    for (const width of [0, 40, 300]) {
      for (const drawn of draw(odd, width).rows) {
        for (const value of [drawn.x, drawn.y, drawn.name, drawn.from?.x ?? 0, drawn.waited ?? 0]) {
          expect(Number.isFinite(value) && value >= 0 && value <= Math.max(300, width)).toBe(true);
        }
      }
    }
    expect(draw(view([]), 300).rows).toEqual([]);
    const many = draw(view(Array.from({ length: 500 }, (_, i) => row({ lag_ms: i }))), 300);
    expect([many.rows.length, many.hidden]).toEqual([ROWS_MAX, 500 - ROWS_MAX]);
    expect(many.ticks.length).toBeLessThanOrEqual(8);
  });
});
