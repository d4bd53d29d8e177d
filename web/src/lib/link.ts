// `caudal:` links: recognised, made, and the descriptor of a list entry read (docs/tracker.md, "Links" and "Descriptors").
// Never checks signatures: the node does, before anything is received.
import { isInward } from './inward';
import type { Descriptor, Entry } from './types';

/** Longest link and descriptor. */
export const LINK_LEN_MAX = 2000;
const DESCRIPTOR_LEN_MAX = 8192 * 4;
const TRACKERS_MAX = 4;
const CHANNEL = /^[a-z2-7]{52}$/;

/**
 * The link in what somebody pasted, or nothing. Printable ASCII only, as every link that Caudal makes: control characters act
 * when they are pasted into a terminal, and direction marks hide what they stand beside. What a shell would read is escaped.
 */
export function linkIn(text: string): string | null {
  const trimmed = text.trim().replace(/^['"“‘<]+|['"”’>]+$/g, '');
  if (trimmed.length > LINK_LEN_MAX || !/^[\x21-\x7e]*$/.test(trimmed)) return null;
  const found = /^caudal:(?:\/\/)?([a-z2-7]{52})\/?(\?.*)?$/.exec(trimmed);
  const link = found && plain(`caudal:${found[1]}${found[2] ?? ''}`);
  return link && link.length <= LINK_LEN_MAX ? link : null;
}

/** Whether somebody means a link, though perhaps a broken one. */
export function looksLikeLink(text: string): boolean {
  return /^\s*['"“‘<]*caudal:/i.test(text);
}

/** The channel's id in a link. */
export function channelOf(link: string): string | null {
  return /^caudal:(?:\/\/)?([a-z2-7]{52})/.exec(link)?.[1] ?? null;
}

/** What to type to watch a link. What a stranger put into it means nothing to any shell: only letters of links are left as they are. */
export function commandFor(link: string): string {
  return `caudal watch '${plain(link)}'`;
}

/** A link in letters that mean nothing within quotes; it means the same. */
function plain(link: string): string {
  return link.replace(/[^A-Za-z0-9:/?=&%._~+-]/gu, percent);
}

function percent(text: string): string {
  return Array.from(new TextEncoder().encode(text), (byte) => `%${byte.toString(16).toUpperCase().padStart(2, '0')}`).join('');
}

/** The name that a link carries, unchecked. */
export function nameIn(link: string): string {
  const query = link.split('?')[1] ?? '';
  return new URLSearchParams(query).get('name') ?? '';
}

/** What a channel says about itself; nothing when it cannot be read. */
export function descriptorOf(entry: Entry): Descriptor {
  const text = entry.descriptor?.descriptor;
  if (typeof text !== 'string' || text.length > DESCRIPTOR_LEN_MAX) return {};
  try {
    const bytes = Uint8Array.from(atob(text.replace(/-/g, '+').replace(/_/g, '/')), (c) => c.charCodeAt(0));
    const read: unknown = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
    return typeof read === 'object' && read !== null ? (read as Descriptor) : {};
  } catch {
    return {};
  }
}

/**
 * The link of a listed channel: as the server gives it, else made from its descriptor and `trackers`, those that are known here.
 * The descriptor's are a stranger's: those that point inwards are left out.
 */
export function linkOf(entry: Entry, trackers: string[] = []): string | null {
  if (typeof entry.link === 'string') return linkIn(entry.link);
  if (!CHANNEL.test(entry.channel)) return null;
  const descriptor = descriptorOf(entry);
  const told = Array.isArray(descriptor.trackers) ? descriptor.trackers : [];
  const usable = told.filter((t) => typeof t === 'string' && /^https?:\/\/[\x21-\x7e]+$/.test(t) && !isInward(t));
  const all = [...new Set([...trackers, ...usable])];
  const parts = all.slice(0, TRACKERS_MAX).map((tracker) => `tracker=${encodeURIComponent(tracker)}`);
  const name = descriptor.name ?? entry.name;
  if (typeof name === 'string' && name) parts.push(`name=${encodeURIComponent(name.slice(0, 64).replace(/\p{Cs}/gu, ''))}`);
  const link = plain(`caudal:${entry.channel}${parts.length ? `?${parts.join('&')}` : ''}`);
  return link.length <= LINK_LEN_MAX ? link : null;
}
