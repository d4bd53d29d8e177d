// What stands beside the charts: the extremes of what is drawn, with what is true at this moment. Pure arithmetic.
import type { Point } from './session.svelte';

function known(points: Point[], now: number | null): number[] {
  return [...points.map((point) => point.value), now].filter((value): value is number => value !== null && Number.isFinite(value));
}

/** The highest value, the present one included. */
export function highest(points: Point[], now: number | null = null): number | null {
  const values = known(points, now);
  return values.length ? Math.max(...values) : null;
}

export function lowest(points: Point[], now: number | null = null): number | null {
  const values = known(points, now);
  return values.length ? Math.min(...values) : null;
}

/** A counter's points after something counted was taken back: none is above what it is now. */
export function notAbove(points: Point[], count: number): Point[] {
  return points.map(({ at, value }) => ({ at, value: value === null ? null : Math.min(value, count) }));
}
