// Where the rows of a traced chunk's tree stand in a picture: time from left to right, the tree from top to bottom. What peers
// report is not believed further than it can be drawn: numbers are finite and within the picture, parents stand above.
import type { TraceRow, TraceView } from './types';

/** Rows that are drawn; the others are counted. */
export const ROWS_MAX = 40;
/** Height of a row, and of the axis below, px. */
export const STEP = 24;
export const AXIS = 26;
/** Width of the names on the left, where the tree is indented, and of the delays on the right. */
const NAMES = 118;
const DELAYS = 74;
const INDENT = 10;
const DEPTH_SHOWN = 5;

export interface Drawn {
  row: TraceRow;
  /** Where its name begins. */
  name: number;
  x: number;
  y: number;
  /** Where the hop began: at whom it came from. */
  from: { x: number; y: number } | null;
  /** Until where it waited at the sender. */
  waited: number | null;
}

export interface Picture {
  rows: Drawn[];
  hidden: number;
  height: number;
  ticks: { x: number; ms: number }[];
}

const finite = (value: unknown): value is number => typeof value === 'number' && Number.isFinite(value);

export function draw(view: TraceView, width: number): Picture {
  const all = Array.isArray(view.rows) ? view.rows : [];
  const rows = all.slice(0, ROWS_MAX);
  const lags = rows.map((row) => row.lag_ms).filter(finite);
  const first = lags.length ? Math.min(...lags) : 0;
  const last = Math.max(first + 1, ...lags);
  const left = NAMES + 8;
  const right = Math.max(left + 40, width - DELAYS);
  const x = (ms: number) => left + ((ms - first) / (last - first)) * (right - left);
  const drawn: Drawn[] = [];
  for (const [i, row] of rows.entries()) {
    const above = row.parent !== null && row.parent < i ? drawn[row.parent]! : null;
    const at = finite(row.lag_ms) ? x(row.lag_ms) : (above?.x ?? left);
    const waited = above && finite(row.queue_ms) && row.queue_ms >= 0 ? Math.min(at, above.x + x(first + row.queue_ms) - left) : null;
    drawn.push({
      row,
      name: 4 + Math.min(finite(row.depth) ? row.depth : 0, DEPTH_SHOWN) * INDENT,
      x: at,
      y: i * STEP + STEP / 2 + 4,
      from: above && { x: above.x, y: above.y },
      waited: waited !== null && waited > (above?.x ?? 0) ? waited : null,
    });
  }
  return { rows: drawn, hidden: all.length - rows.length, height: rows.length * STEP + AXIS + 8, ticks: ticks(first, last).map((ms) => ({ x: x(ms), ms })) };
}

/** Three to six round times within the picture. */
function ticks(first: number, last: number): number[] {
  const step = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000].find((step) => (last - first) / step <= 5) ?? (last - first) / 4;
  const from = Math.ceil(first / step);
  return Array.from({ length: Math.max(0, Math.floor(last / step) - from + 1) }, (_, i) => (from + i) * step).slice(0, 8);
}
