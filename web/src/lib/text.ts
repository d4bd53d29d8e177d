// Makes text from strangers harmless: names, descriptions, reasons, links. It is shown as text nodes only, in a box of its
// own; here the characters that would reach out of that box are made visible or taken away. Never makes markup.

/** Longest name and description that are laid out, characters. What is longer is cut, and says so with an ellipsis. */
export const NAME_MAX = 80;
export const TEXT_MAX = 600;

/** Controls, direction marks and overrides, invisible, empty and tag characters, byte-order marks, noncharacters, lone surrogates. */
const HOSTILE =
  /[\p{Cc}\p{Co}\p{Cs}\u00AD\u034F\u061C\u115F\u1160\u17B4\u17B5\u180B-\u180F\u200B-\u200F\u2028-\u202E\u2060-\u206F\u2800\u3164\uFE00-\uFE0E\uFEFF\uFFA0\uFFF0-\uFFFB\uFFFE\uFFFF]|[\u{1BCA0}-\u{1BCA3}\u{1D173}-\u{1D17A}\u{E0000}-\u{E0FFF}]/gu;
/** More combining marks than this on one letter climb over the lines above. */
const MARKS_MAX = 3;
const MARKS = new RegExp(`(\\p{M}{${MARKS_MAX}})\\p{M}+`, 'gu');
/** Zero-width joiner between pictographs: families and flags need it. */
const JOINED = /(\p{Extended_Pictographic}\uFE0F?)\u200D(?=\p{Extended_Pictographic})/gu;
/** Stands for a joiner that stays, while the others go. */
const KEPT = '\uF8FF';

function harmless(text: string, newlines: boolean): string {
  let out = text.replaceAll(KEPT, '');
  if (newlines) out = out.replace(/\r\n?/g, '\n');
  out = out.replace(JOINED, `$1${KEPT}`);
  out = out.replace(HOSTILE, (c) => {
    if (c === KEPT) return '\u200D';
    if (newlines && c === '\n') return '\n';
    if (c === '\t' || c === '\n' || c === '\r') return ' ';
    return '\uFFFD';
  });
  return out.replace(MARKS, '$1').replace(/\uFFFD{2,}/g, '\uFFFD');
}

function cut(text: string, max: number): string {
  // By code points, so that no pair is torn; and never looking at more of ten megabytes than could be shown.
  const points = Array.from(text.slice(0, max * 4));
  return points.length > max || text.length > max * 4 ? `${points.slice(0, max - 1).join('')}…` : text;
}

/** One line: a name, a language, a reason. */
export function line(text: unknown, max = NAME_MAX): string {
  if (typeof text !== 'string') return '';
  return cut(harmless(text.slice(0, max * 8), false).replace(/\s+/g, ' ').trim(), max);
}

/** Several lines: a description. Runs of empty lines become one. */
export function paragraph(text: unknown, max = TEXT_MAX): string {
  if (typeof text !== 'string') return '';
  const tidy = harmless(text.slice(0, max * 8), true).replace(/[ \u00A0]+\n/g, '\n').replace(/\n{3,}/g, '\n\n');
  return cut(tidy.trim(), max);
}

/** The beginning of an id, for people. */
export function shortId(id: unknown): string {
  const text = line(id, 64);
  return text.length > 8 ? `${text.slice(0, 4)}…${text.slice(-4)}` : text;
}
