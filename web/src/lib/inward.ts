// Tells trackers that point into somebody's own computer or network: no descriptor, written by anybody, leads a viewer there.
// Never resolves names: the node does that, and looks again.

/** Endings of names that only a local resolver answers. */
const LOCAL = ['.localhost', '.local', '.lan', '.internal', '.home.arpa', '.home', '.intranet'];

/** IPv4 networks that are not public: first address, bits. */
const NETWORKS: [number[], number][] = [
  [[0, 0, 0, 0], 8], [[10, 0, 0, 0], 8], [[100, 64, 0, 0], 10], [[127, 0, 0, 0], 8], [[169, 254, 0, 0], 16], [[172, 16, 0, 0], 12],
  [[192, 0, 0, 0], 24], [[192, 168, 0, 0], 16], [[198, 18, 0, 0], 15], [[224, 0, 0, 0], 3],
];

function isInwardV4(bytes: number[]): boolean {
  const number = (quad: number[]) => quad.reduce((sum, byte) => sum * 256 + byte, 0);
  return NETWORKS.some(([first, bits]) => Math.floor(number(bytes) / 2 ** (32 - bits)) === Math.floor(number(first) / 2 ** (32 - bits)));
}

/** The eight groups of an address as `URL` writes it: compressed, without dotted quads. */
function groupsOf(text: string): number[] {
  const [head = '', tail] = text.split('::');
  const read = (part: string) => (part ? part.split(':').map((group) => Number.parseInt(group, 16)) : []);
  if (tail === undefined) return read(head);
  const [before, after] = [read(head), read(tail)];
  return [...before, ...new Array<number>(Math.max(0, 8 - before.length - after.length)).fill(0), ...after];
}

function isInwardV6(text: string): boolean {
  const groups = groupsOf(text);
  const quad = groups.slice(6).flatMap((group) => [group >> 8, group & 255]);
  const begins = (...with_: number[]) => with_.every((group, i) => groups[i] === group);
  // Mapped, compatible (with it :: and ::1) and translated addresses are the IPv4 address in them.
  if (begins(0, 0, 0, 0, 0, 0xffff) || begins(0, 0, 0, 0, 0, 0) || begins(0x64, 0xff9b, 0, 0, 0, 0)) return isInwardV4(quad);
  if (begins(0x2002)) return isInwardV4([groups[1]! >> 8, groups[1]! & 255, groups[2]! >> 8, groups[2]! & 255]);
  // Public addresses are 2000::/3: unique-local, link-local and multicast ones are not.
  return groups[0]! >> 13 !== 1;
}

/** Whether a tracker's URL points inwards; what is no URL of the web does, too. */
export function isInward(tracker: string): boolean {
  let url: URL;
  try {
    url = new URL(tracker);
  } catch {
    return true;
  }
  if (url.protocol !== 'https:' && url.protocol !== 'http:') return true;
  // `URL` writes every form of an IPv4 address (hexadecimal, one number) as four decimal ones.
  const host = url.hostname.toLowerCase().replace(/\.+$/, '');
  if (host.startsWith('[')) return isInwardV6(host.slice(1, -1));
  if (/^\d+(\.\d+){3}$/.test(host)) return isInwardV4(host.split('.').map(Number));
  return !host.includes('.') || LOCAL.some((ending) => host.endsWith(ending));
}
