// The list of channels as events tell it, made ready for the eye: harmless text, a health word, an order that does not move
// under a finger. Owns the order; never fetches anything but the events.
import { listen } from './api';
import { descriptorOf, linkOf } from './link';
import { line, paragraph } from './text';
import type { Entry } from './types';

/** How a channel goes, as far as anybody can tell: `null` is nothing to be said. */
export type Health = 'smooth' | 'strained' | 'starting' | 'silent' | null;

export interface Row {
  channel: string;
  name: string;
  description: string;
  language: string;
  viewers: number;
  sinceMs: number | null;
  health: Health;
  /** What the health word is made of. */
  facts: Facts;
  link: string | null;
  /** It left while the viewer's finger was on the list: it goes when the finger does. */
  gone: boolean;
}

interface Facts {
  isSilent: boolean;
  /** When the broadcast began, ms since the Unix epoch. */
  begunMs: number | null;
  /** Mean share of chunks in time, as viewers report it. */
  continuity: number | null;
}

/** Rows that are kept: the directory's first page is 100, events may add more. */
const ROWS_MAX = 500;
/** How often the order may change, ms. */
const ORDER_MS = 4000;
/** A broadcast younger than this is starting, ms. */
const YOUNG_MS = 60_000;
/** Continuity from which on a channel is smooth. */
const SMOOTH_FROM = 0.99;
/** A channel id: anything else in a list is not shown. */
const CHANNEL = /^[a-z2-7]{52}$/;

export function health({ isSilent, begunMs, continuity }: Facts, now: number): Health {
  if (isSilent) return 'silent';
  if (continuity !== null) return continuity >= SMOOTH_FROM ? 'smooth' : 'strained';
  return begunMs !== null && now - begunMs < YOUNG_MS ? 'starting' : null;
}

/** Share of chunks in time that an entry or a `viewers` event tells, if it does. */
export function continuityOf(told: Pick<Entry, 'quality'>): number | null {
  const continuity = told.quality?.continuity;
  return typeof continuity === 'number' && continuity >= 0 && continuity <= 1 ? continuity : null;
}

function count(value: unknown): number {
  return typeof value === 'number' && Number.isFinite(value) && value > 0 ? Math.floor(value) : 0;
}

export class Directory {
  rows = $state<Row[]>([]);
  status = $state<'connecting' | 'up' | 'lost'>('connecting');
  /** A finger, pointer or the keyboard is on the list. */
  busy = false;
  #trackers: string[];
  #stop: () => void;
  #timer: ReturnType<typeof setInterval>;

  constructor(path: string, trackers: string[]) {
    this.#trackers = trackers;
    this.#timer = setInterval(() => {
      this.#age();
      this.#order();
    }, ORDER_MS);
    this.#stop = listen(
      path,
      {
        snapshot: (data) => this.#snapshot(data),
        channel: (data) => this.#put(data as Entry),
        gone: (data) => this.#gone((data as Entry).channel),
        viewers: (data) => this.#viewers(data as Entry),
      },
      (up) => {
        if (!up) this.status = 'lost';
      },
    );
  }

  close(): void {
    clearInterval(this.#timer);
    this.#stop();
  }

  #snapshot(data: unknown): void {
    const list = (data as { channels?: unknown }).channels;
    if (!Array.isArray(list)) return;
    this.status = 'up';
    const there = new Set(list.map((entry: Entry) => entry.channel));
    for (const row of [...this.rows]) if (!there.has(row.channel)) this.#gone(row.channel);
    const first = this.rows.length === 0;
    for (const entry of list.slice(0, ROWS_MAX)) this.#put(entry as Entry);
    if (first) this.#order();
  }

  #put(entry: Entry): void {
    if (typeof entry?.channel !== 'string' || !CHANNEL.test(entry.channel)) return;
    if (entry.state !== 'live' && entry.state !== 'silent' && entry.state !== 'waiting') return this.#gone(entry.channel);
    const row = this.#row(entry);
    const at = this.rows.findIndex((other) => other.channel === entry.channel);
    if (at >= 0) this.rows[at] = row;
    else if (this.rows.length < ROWS_MAX) this.rows.push(row);
  }

  #row(entry: Entry): Row {
    const descriptor = descriptorOf(entry);
    const told = entry.since_unix_ms ?? descriptor.issued_unix_ms;
    const sinceMs = typeof told === 'number' && Number.isFinite(told) && told > 0 && told < 8.64e15 ? told : null;
    // A descriptor is issued anew when the picture changes: that is no beginning.
    const begunMs = entry.since_unix_ms == null ? null : sinceMs;
    const facts = { isSilent: entry.state !== 'live', begunMs, continuity: continuityOf(entry) };
    return {
      channel: entry.channel,
      name: line(descriptor.name ?? entry.name),
      description: paragraph(descriptor.description),
      language: /^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*$/.test(descriptor.language ?? '') ? descriptor.language!.slice(0, 16) : '',
      viewers: count(entry.viewers),
      sinceMs,
      health: health(facts, Date.now()),
      facts,
      link: linkOf(entry, this.#trackers),
      gone: false,
    };
  }

  #gone(channel: string): void {
    const row = this.rows.find((other) => other.channel === channel);
    if (!row) return;
    if (this.busy) row.gone = true;
    else this.rows = this.rows.filter((other) => other.channel !== channel);
  }

  #viewers(entry: Entry): void {
    const row = this.rows.find((other) => other.channel === entry?.channel);
    if (!row) return;
    row.viewers = count(entry.viewers);
    // Where nothing is said of quality, too few viewers report it.
    row.facts.continuity = continuityOf(entry);
    row.health = health(row.facts, Date.now());
  }

  /** What is new grows old without anybody saying so. */
  #age(): void {
    const now = Date.now();
    for (const row of this.rows) if (row.health === 'starting') row.health = health(row.facts, now);
  }

  /** The busiest first, when nobody is about to press. */
  #order(): void {
    if (this.busy) return;
    const wanted = this.rows.filter((row) => !row.gone).sort((a, b) => b.viewers - a.viewers || a.name.localeCompare(b.name));
    if (wanted.length !== this.rows.length || wanted.some((row, i) => row.channel !== this.rows[i]?.channel)) this.rows = wanted;
  }
}
