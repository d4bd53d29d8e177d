// What this browser remembers for the viewer: language, theme, volume, the answer to the question about uploading, recently
// watched channels. Kept in localStorage, sent to nobody; without storage everything works and nothing is remembered.

export interface Recent {
  channel: string;
  name: string;
  link: string;
  at: number;
}

/** Most recently watched channels that are kept. */
export const RECENT_MAX = 8;
const KEY = 'caudal.';

function read<T>(name: string, fallback: T): T {
  try {
    const text = localStorage.getItem(KEY + name);
    return text === null ? fallback : (JSON.parse(text) as T);
  } catch {
    return fallback;
  }
}

function write(name: string, value: unknown): void {
  try {
    if (value === null) localStorage.removeItem(KEY + name);
    else localStorage.setItem(KEY + name, JSON.stringify(value));
  } catch {
    // Full or forbidden: nothing depends on it.
  }
}

export const settings = {
  language: (): string | null => read('language', null),
  setLanguage: (value: string) => write('language', value),
  theme: (): string => read('theme', 'auto'),
  setTheme: (value: string) => write('theme', value),
  volume: (): number => {
    const value = read<unknown>('volume', 1);
    return typeof value === 'number' && value >= 0 && value <= 1 ? value : 1;
  },
  setVolume: (value: number) => write('volume', value),
  muted: (): boolean => read<unknown>('muted', false) === true,
  setMuted: (value: boolean) => write('muted', value),
  /** Whether to upload to others; `null` while nobody has answered. */
  upload: (): boolean | null => read('upload', null),
  setUpload: (value: boolean) => write('upload', value),
  /** Whether the viewer knows that others see the address: asked where there is nothing to say about uploading. */
  told: (): boolean => read<unknown>('told', false) === true,
  setTold: () => write('told', true),
  recent: (): Recent[] => {
    const list = read<unknown>('recent', []);
    if (!Array.isArray(list)) return [];
    return list
      .filter((r): r is Recent => typeof r?.channel === 'string' && typeof r?.link === 'string')
      .slice(0, RECENT_MAX);
  },
  addRecent: (recent: Recent) => {
    const others = settings.recent().filter((r) => r.channel !== recent.channel);
    write('recent', [recent, ...others].slice(0, RECENT_MAX));
  },
  removeRecent: (channel: string) => write('recent', settings.recent().filter((r) => r.channel !== channel)),
};
