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

export interface Advice {
  kind: 'keyframes' | 'jitter' | 'drift' | 'breaks' | 'fps' | 'noSound';
  value: number;
}

/** Warnings, the gravest first. */
export function advise(input: InputReport): Advice[] {
  const out: Advice[] = [];
  if (input.samples < SAMPLES_MIN) return out;
  if (input.key_interval_ms !== null && input.key_interval_ms > KEY_INTERVAL_MAX_MS) out.push({ kind: 'keyframes', value: input.key_interval_ms });
  if (input.jitter_ms > JITTER_MAX_MS) out.push({ kind: 'jitter', value: input.jitter_ms });
  if (input.discontinuities > 0) out.push({ kind: 'breaks', value: input.discontinuities });
  if (input.fps > 0 && input.fps < FPS_MIN) out.push({ kind: 'fps', value: input.fps });
  if (Math.abs(input.drift_ms) > DRIFT_MAX_MS) out.push({ kind: 'drift', value: Math.abs(input.drift_ms) });
  if (input.codecs && !input.codecs.includes('mp4a')) out.push({ kind: 'noSound', value: 0 });
  return out;
}
