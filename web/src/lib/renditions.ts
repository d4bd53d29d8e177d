// Which renditions there are and which is meant: what the menu and the desk say of them. Pure functions, no words.
import type { Rendition } from './types';

/** A channel has no more, whatever comes over the wire. */
export const RENDITIONS_MAX = 8;

/** The best first. */
export function sorted(told: Rendition[] | undefined): Rendition[] {
  const all = Array.isArray(told) ? told.slice(0, RENDITIONS_MAX) : [];
  return all.sort((a, b) => b.bandwidth_bps - a.bandwidth_bps);
}

/** How many viewers have each of a source's renditions, the best first; nothing where viewers do not say. */
export function shares(told: { id: number; viewers: number }[] | undefined, arriving: Rendition[] | undefined): Share[] {
  const counts = new Map((Array.isArray(told) ? told.slice(0, RENDITIONS_MAX) : []).map((one) => [one.id, one.viewers]));
  const all = Array.isArray(arriving) ? arriving.slice(0, RENDITIONS_MAX) : [];
  const sum = [...counts.values()].reduce((sum, viewers) => sum + viewers, 0);
  if (all.length < 2 || !(sum > 0)) return [];
  const renditions = all.map(({ id, input }) => ({ id, height: input?.height, bandwidth_bps: input?.rate_bps ?? 0 }));
  return sorted(renditions).map((rendition) => ({ rendition, viewers: counts.get(rendition.id) ?? 0, share: (counts.get(rendition.id) ?? 0) / sum }));
}

export interface Share {
  rendition: Rendition;
  viewers: number;
  /** Of those that say which one plays. */
  share: number;
}

/** `720p`; nothing where there is no picture. */
export function heightName(one: Rendition): string | null {
  return one.height ? `${one.height}p` : null;
}

/** Which one was chosen by hand: a number, or the best that is no higher than a height (`720p`); `null` is by itself. */
export function chosen(wanted: string | undefined, all: Rendition[]): number | null {
  const height = /^(\d+)p$/.exec(wanted ?? '');
  if (!height) return all.find((one) => String(one.id) === wanted)?.id ?? null;
  const most = Number(height[1]);
  const byHeight = [...all].sort((a, b) => (b.height ?? 0) - (a.height ?? 0) || b.bandwidth_bps - a.bandwidth_bps);
  return (byHeight.find((one) => (one.height ?? 0) <= most) ?? byHeight.at(-1))?.id ?? null;
}

/** The next place in a menu of `count` for a key; `null` where the key moves nowhere. */
export function moved(key: string, at: number, count: number): number | null {
  const to: Record<string, number> = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: count - 1, PageUp: 0, PageDown: count - 1 };
  const place = to[key];
  return place === undefined || count === 0 ? null : (place + count) % count;
}
