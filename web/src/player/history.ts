// Finds what the node still keeps from before this page began to watch: the segments of the HLS playlist that stand on the same
// timeline as the stream. Never fetches more than was asked for.

/** A segment in the playlist: where it is, and how long it is, s. */
export interface Segment {
  uri: string;
  seconds: number;
}

/** Longest playlist that is read, characters. */
const PLAYLIST_LEN_MAX = 1 << 20;

/** The segments after the last break in the timeline: what came before has other times or another init segment. */
export function segments(playlist: string): Segment[] {
  let found: Segment[] = [];
  let seconds: number | null = null;
  for (const text of playlist.slice(0, PLAYLIST_LEN_MAX).split('\n')) {
    const line = text.trim();
    if (line === '#EXT-X-DISCONTINUITY' || line.startsWith('#EXT-X-MAP:')) found = [];
    else if (line.startsWith('#EXTINF:')) seconds = Number.parseFloat(line.slice(8));
    else if (line && !line.startsWith('#') && seconds !== null) {
      // Only names beside the playlist: nothing leads to another host or folder.
      if (/^[A-Za-z0-9_.-]+$/.test(line) && Number.isFinite(seconds)) found.push({ uri: line, seconds });
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
  return name && /^[A-Za-z0-9_.-]+$/.test(name) ? name : null;
}
