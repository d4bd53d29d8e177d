// Which language the page speaks, and how it writes numbers, times and rates. Every number gets its unit here.
import { en, type Strings } from '../strings/en';
import { es } from '../strings/es';
import { settings } from './settings';

export const languages: Record<string, Strings> = { en, es };

function preferred(): string {
  const wishes = [settings.language() ?? '', ...navigator.languages];
  return wishes.map((wish) => wish.slice(0, 2).toLowerCase()).find((wish) => wish in languages) ?? 'en';
}

const chosen = $state({ language: preferred() });

/** The words. */
export const t = {
  get words(): Strings {
    return languages[chosen.language] ?? en;
  },
  get language(): string {
    return chosen.language;
  },
};

export function setLanguage(language: string): void {
  if (!(language in languages)) return;
  chosen.language = language;
  settings.setLanguage(language);
}

/** The viewer's own variety of the language: es-MX writes 1,234.5 where es-ES writes 1234,5. */
const locale = $derived(navigator.languages.find((tag) => tag.slice(0, 2).toLowerCase() === chosen.language) ?? chosen.language);

const cache = new Map<string, Intl.NumberFormat>();
function formatter(options: Intl.NumberFormatOptions): Intl.NumberFormat {
  const key = locale + JSON.stringify(options);
  let found = cache.get(key);
  if (!found) cache.set(key, (found = new Intl.NumberFormat(locale, options)));
  return found;
}

const GAP = '\u00A0';
const usable = (value: number | null | undefined): value is number => value != null && Number.isFinite(value);

export const format = {
  number: (value: number | null | undefined, digits = 0) =>
    usable(value) ? formatter({ maximumFractionDigits: digits, minimumFractionDigits: digits }).format(value) : '–',
  seconds: (value: number | null | undefined, digits = 1) => (usable(value) ? format.number(value, digits) + GAP + 's' : '–'),
  ms: (value: number | null | undefined) => (usable(value) ? format.number(value) + GAP + 'ms' : '–'),
  percent: (ratio: number | null | undefined, digits = 0) =>
    usable(ratio) ? formatter({ style: 'percent', maximumFractionDigits: digits, minimumFractionDigits: 0 }).format(ratio) : '–',
  /** Bit rates: 2.9 Mbit/s. */
  rate: (bps: number | null | undefined) => {
    if (!usable(bps)) return '–';
    if (bps >= 999_500) return format.number(bps / 1e6, bps < 99.95e6 ? 1 : 0) + GAP + 'Mbit/s';
    return format.number(bps / 1e3) + GAP + 'kbit/s';
  },
  bytes: (bytes: number | null | undefined) => {
    if (!usable(bytes)) return '–';
    const [size, unit] = bytes >= 1e12 ? [1e12, 'TB'] : bytes >= 1e9 ? [1e9, 'GB'] : bytes >= 1e6 ? [1e6, 'MB'] : [1e3, 'kB'];
    return format.number(bytes / size, size > 1e3 ? 1 : 0) + GAP + unit;
  },
  /** A moment: the time today, with the date before. */
  moment: (unixMs: number) => {
    const date = new Date(unixMs);
    const today = new Date().toDateString() === date.toDateString();
    const options: Intl.DateTimeFormatOptions = today ? { timeStyle: 'short' } : { dateStyle: 'medium', timeStyle: 'short' };
    return new Intl.DateTimeFormat(locale, options).format(date);
  },
  /** How long: 1 h 20 min, 5 min, 40 s. */
  duration: (ms: number) => {
    const seconds = Math.max(0, Math.floor(ms / 1000));
    const [h, m] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60];
    if (h > 0) return `${format.number(h)}${GAP}h ${m}${GAP}min`;
    return m > 0 ? `${m}${GAP}min` : `${seconds}${GAP}s`;
  },
  /** The name of a language, in the page's language. */
  language: (tag: string) => {
    try {
      return new Intl.DisplayNames([locale], { type: 'language' }).of(tag) ?? tag;
    } catch {
      return tag;
    }
  },
};
