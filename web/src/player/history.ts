// Finds what the node still keeps from before this page began to watch: the segments of the HLS playlist, each with the init data
// that it goes with. Never fetches anything; whether they stand on the stream's timeline, their own times tell.

/** A segment in the playlist: where it is, how long it is, s, and where its init data is. */
export interface Segment {
  uri: string;
  seconds: number;
  map: string | null;
}

/** Longest playlist that is read, characters. */
const PLAYLIST_LEN_MAX = 1 << 20;

/** Only names beside the playlist: nothing leads to another host or folder. */
const isName = (text: string) => /^[A-Za-z0-9_.-]+$/.test(text);

/** All segments, in order. */
export function segments(playlist: string): Segment[] {
  const found: Segment[] = [];
  let seconds: number | null = null;
  let map: string | null = null;
  for (const text of playlist.slice(0, PLAYLIST_LEN_MAX).split('\n')) {
    const line = text.trim();
    if (line.startsWith('#EXT-X-MAP:')) {
      const name = /URI="([^"]*)"/.exec(line)?.[1] ?? '';
      map = isName(name) ? name : null;
    } else if (line.startsWith('#EXTINF:')) seconds = Number.parseFloat(line.slice(8));
    else if (line && !line.startsWith('#') && seconds !== null) {
      if (isName(line) && Number.isFinite(seconds)) found.push({ uri: line, seconds, map });
      seconds = null;
    }
  }
  return found;
}

/** The media playlist's name in a multivariant playlist. */
export function mediaPlaylist(multivariant: string): string | null {
  const lines = multivariant.slice(0, PLAYLIST_LEN_MAX).split('\n').map((line) => line.trim());
  const at = lines.findIndex((line) => line.startsWith('#EXT-X-STREAM-INF:'));
  const name = at < 0 ? undefined : lines[at + 1];
  return name && isName(name) ? name : null;
}
