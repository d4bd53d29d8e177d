// What a broadcaster should change, from what arrives. Thresholds stand here; the words stand in the language files.
import type { InputReport } from './types';

/** The rule is 1 or 2 s between key frames; from here on viewers wait noticeably for their first picture, ms. */
export const KEY_INTERVAL_MAX_MS = 2_500;
/** Data more uneven than this eats into everybody's buffer, ms. */
export const JITTER_MAX_MS = 150;
/** A clock this far away, ms. */
export const DRIFT_MAX_MS = 2_000;
export const FPS_MIN = 15;
/** Samples before anything is judged. */
const SAMPLES_MIN = 60;

/** A break in the timeline is of interest for so long, ms. */
export const BREAKS_WINDOW_MS = 60_000;
/** Times at which the timeline broke that are kept. */
const BREAKS_KEPT = 64;

/** The breaks of the last minute, from a counter that only grows, or begins anew. What it begins with is no news. */
export class Breaks {
  #count: number | null = null;
  #grew: { at: number; by: number }[] = [];

  /** Takes the counter as it is at `now`, ms; gives how often the timeline broke in the last minute. */
  take(count: number, now: number): number {
    const before = this.#count;
    this.#count = count;
    if (before !== null && count > before) this.#grew.push({ at: now, by: count - before });
    this.#grew = this.#grew.filter(({ at }) => now - at < BREAKS_WINDOW_MS).slice(-BREAKS_KEPT);
    return this.#grew.reduce((sum, { by }) => sum + by, 0);
  }
}

export interface Advice {
  kind: 'keyframes' | 'jitter' | 'drift' | 'breaks' | 'fps' | 'noSound';
  value: number;
}

/** Warnings, the gravest first; `breaks` are those of the last minute. */
export function advise(input: InputReport, breaks = 0): Advice[] {
  const out: Advice[] = [];
  if (input.samples < SAMPLES_MIN) return out;
  if (input.key_interval_ms !== null && input.key_interval_ms > KEY_INTERVAL_MAX_MS) out.push({ kind: 'keyframes', value: input.key_interval_ms });
  if (input.jitter_ms > JITTER_MAX_MS) out.push({ kind: 'jitter', value: input.jitter_ms });
  if (breaks > 0) out.push({ kind: 'breaks', value: breaks });
  if (input.fps > 0 && input.fps < FPS_MIN) out.push({ kind: 'fps', value: input.fps });
  if (Math.abs(input.drift_ms) > DRIFT_MAX_MS) out.push({ kind: 'drift', value: Math.abs(input.drift_ms) });
  if (input.codecs && !input.codecs.includes('mp4a')) out.push({ kind: 'noSound', value: 0 });
  return out;
}
