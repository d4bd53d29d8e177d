// The list as events tell it: the health word, with and without what viewers report.
import { afterEach, describe, expect, it, vi } from 'vitest';
import { continuityOf, Directory, health } from '../../src/lib/directory.svelte';
import { en } from '../../src/strings/en';

const ID = 'abcdefghijklmnopqrstuvwxyz234567abcdefghijklmnopqrst';
const NOW = 1_800_000_000_000;

describe('health', () => {
  const word = (continuity: number | null, ageMs: number | null, isSilent = false) => health({ isSilent, begunMs: ageMs === null ? null : NOW - ageMs, continuity }, NOW);
  it('goes by what viewers report', () => {
    expect([word(1, 5_000), word(0.99, 500_000), word(0.989, 500_000), word(0, 5_000)]).toEqual(['smooth', 'smooth', 'strained', 'strained']);
  });
  it('says that a channel is starting for a minute, and then nothing that nobody knows', () => {
    expect([word(null, 0), word(null, 59_000), word(null, 61_000), word(null, null)]).toEqual(['starting', 'starting', null, null]);
  });
  it('knows silence before all', () => expect(word(1, 5_000, true)).toBe('silent'));
  it('takes a share for a share only', () => {
    const odd = [undefined, null, {}, { continuity: undefined }, { continuity: Number.NaN }, { continuity: 1.2 }, { continuity: -1 }, { continuity: '1' }];
    for (const quality of odd) expect(continuityOf({ quality } as never)).toBeNull();
    expect(continuityOf({})).toBeNull();
    expect(continuityOf({ quality: { reports: 2, continuity: 0.5 } })).toBe(0.5);
  });
  it('has a word and an explanation for each', () => {
    expect(Object.keys(en.list.healthTitle)).toEqual(Object.keys(en.list.health));
  });
});

describe('Directory', () => {
  const tell: Record<string, (data: unknown) => void> = {};
  class Events {
    addEventListener(name: string, handle: (event: { data: string }) => void) {
      tell[name] = (data) => handle({ data: JSON.stringify(data) });
    }
    close() {}
  }
  const make = () => {
    vi.useFakeTimers({ now: NOW });
    vi.stubGlobal('EventSource', Events);
    vi.stubGlobal('location', { pathname: '/', hostname: '127.0.0.1' });
    const directory = new Directory('/v1/channels/events', []);
    return { directory, now: () => directory.rows[0]?.health };
  };
  afterEach(() => {
    vi.unstubAllGlobals();
    vi.useRealTimers();
  });

  it('follows a channel from its start to smooth, strained and unknown', () => {
    const { directory, now } = make();
    tell.snapshot!({ channels: [{ channel: ID, state: 'live', viewers: 0, since_unix_ms: NOW - 1000 }], total: 1 });
    expect(now()).toBe('starting');
    tell.viewers!({ channel: ID, viewers: 3, quality: { reports: 3, continuity: 0.998 } });
    expect(now()).toBe('smooth');
    tell.viewers!({ channel: ID, viewers: 4 });
    expect([now(), directory.rows[0]!.viewers]).toEqual(['starting', 4]);
    tell.channel!({ channel: ID, state: 'live', viewers: 4, since_unix_ms: NOW - 1000, quality: { reports: 4, continuity: 0.9 } });
    expect(now()).toBe('strained');
    vi.setSystemTime(NOW + 120_000);
    tell.viewers!({ channel: ID, viewers: 1, quality: null });
    expect(now()).toBeNull();
    directory.close();
  });

  it('needs no quality, and lets what is new grow old by itself', () => {
    const { directory, now } = make();
    tell.snapshot!({ channels: [{ channel: ID, state: 'live', viewers: 9, since_unix_ms: NOW - 50_000, quality: null }] });
    expect(now()).toBe('starting');
    vi.advanceTimersByTime(15_000);
    expect(now()).toBeNull();
    tell.channel!({ channel: ID, state: 'silent', since_unix_ms: null });
    expect(now()).toBe('silent');
    tell.gone!({ channel: ID, state: 'taken_down' });
    expect(directory.rows).toEqual([]);
    directory.close();
  });
});
