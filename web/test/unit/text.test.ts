// What strangers write stays in its box: no direction tricks, no invisible characters, no ten kilobytes.
import { describe, expect, it } from 'vitest';
import { advise, Breaks, BREAKS_WINDOW_MS } from '../../src/lib/advice';
import { isInward } from '../../src/lib/inward';
import { channelOf, commandFor, descriptorOf, linkIn, linkOf, looksLikeLink, nameIn } from '../../src/lib/link';
import { line, NAME_MAX, paragraph, shortId, TEXT_MAX } from '../../src/lib/text';
import { mediaPlaylist, segments } from '../../src/player/history';
import { en } from '../../src/strings/en';
import { es } from '../../src/strings/es';

const ID = 'abcdefghijklmnopqrstuvwxyz234567abcdefghijklmnopqrst';

describe('text', () => {
  it('shows control and direction characters harmlessly', () => {
    expect(line('Canal\u202Egpj.exe')).toBe('Canal\uFFFDgpj.exe');
    expect(line('a\u200Bb\u2066c\u0000d\u{E0041}e')).toBe('a\uFFFDb\uFFFDc\uFFFDd\uFFFDe');
    for (const c of ['\u2800', '\u{1BCA0}', '\u{1BCA3}', '\u{1D173}', '\u{1D17A}', '\u{E0100}', '\u{E01EF}', '\uFE00', '\uFE0E', '\u115F', '\u1160', '\u3164', '\uFFA0']) expect(line(`a${c}b`)).toBe('a\uFFFDb');
    expect(line('one\r\ntwo\tthree')).toBe('one two three');
    expect(line('\uD800x')).toBe('\uFFFDx');
  });
  it('leaves honest text alone', () => {
    for (const text of ['Río Abierto', 'قناة الأخبار', '日本のテレビ', 'Ελληνικά & <b>', '👨‍👩‍👧 TV ❤️', 'Việt Nam']) expect(line(text)).toBe(text);
  });
  it('keeps marks from climbing', () => {
    expect(line(`Z${'\u0301'.repeat(50)}`)).toBe(`Z${'\u0301'.repeat(3)}`);
  });
  it('cuts what is too long, and says so', () => {
    expect(Array.from(line('x'.repeat(10_000)))).toHaveLength(NAME_MAX);
    expect(line('x'.repeat(10_000)).endsWith('…')).toBe(true);
    expect(Array.from(paragraph('😀'.repeat(10_000))).length).toBeLessThanOrEqual(TEXT_MAX);
    expect(paragraph('a\n\n\n\n\nb')).toBe('a\n\nb');
  });
  it('takes nothing but text', () => {
    for (const odd of [null, undefined, 5, {}, ['x']]) expect([line(odd), paragraph(odd), shortId(odd)]).toEqual(['', '', '']);
  });
});

describe('links', () => {
  it('are found in what people paste', () => {
    expect(linkIn(` 'caudal:${ID}?tracker=http%3A%2F%2Fx&name=Canal%201' `)).toBe(`caudal:${ID}?tracker=http%3A%2F%2Fx&name=Canal%201`);
    expect(linkIn(`caudal:${ID}`)).toBe(`caudal:${ID}`);
    for (const bad of ['', 'caudal:short', `javascript:${ID}`, `caudal:${ID} x`, `caudal:${ID}?${'x'.repeat(3000)}`]) expect(linkIn(bad)).toBeNull();
    expect(looksLikeLink('caudal:short')).toBe(true);
    expect(channelOf(`caudal:${ID}?name=x`)).toBe(ID);
    expect(nameIn(`caudal:${ID}?name=Canal%201`)).toBe('Canal 1');
  });
  it('cannot leave the quotes of the command that opens them', () => {
    expect(commandFor(`caudal:${ID}?name='$(id)'`)).toBe(`caudal watch 'caudal:${ID}?name=%27%24%28id%29%27'`);
    const acting = ["'", '"', '\\', '`', '!', '$', ';', '|', '<', '>', '(', ')', '#', '*', '^', '{'];
    for (const c of acting) {
      const link = linkIn(`caudal:${ID}?name=${c}x`);
      expect(commandFor(link!)).toMatch(new RegExp(`^caudal watch 'caudal:${ID}\\?name=%[0-9A-F]{2}x'$`));
      expect(nameIn(commandFor(link!).slice(14, -1))).toBe(`${c}x`);
    }
  });
  it('hold nothing that acts or hides when it is pasted', () => {
    const bad = ['\x1b[201~\x15touch${IFS}X;#\x0f', '\u202E', '\u2066', '\x00', '\x7f', '\x9b', 'ñ', '\u200B', '\u00A0', '’x', '\n'];
    for (const text of bad) {
      expect(linkIn(`caudal:${ID}?name=${text}a`)).toBeNull();
      expect(looksLikeLink(`caudal:${ID}?name=${text}a`)).toBe(true);
      expect(linkOf({ channel: ID, state: 'live', link: `caudal:${ID}?name=${text}a` })).toBeNull();
    }
    const whole = `caudal:${ID}?name=`;
    expect(linkIn(whole + 'x'.repeat(2000 - whole.length))).toHaveLength(2000);
    expect(linkIn(whole + 'x'.repeat(2001 - whole.length))).toBeNull();
  });
  it('lead to no computer or network of the viewer, but to the page’s own tracker', () => {
    const inside = [
      'localhost', 'LOCALHOST', 'localhost.', 'a.localhost', 'tracker', 'printer.local', 'x.internal.', 'nas.home.arpa', '127.0.0.1', '127.1', '2130706433', '0x7f.1',
      '10.1.2.3', '172.16.0.1', '172.31.255.255', '192.168.1.1', '169.254.169.254', '100.64.0.1', '0.0.0.0', '[::1]', '[::]', '[fe80::1]', '[fd00::1]', '[fc00::1]',
      '[::ffff:127.0.0.1]', '[::ffff:192.168.1.1]', '[64:ff9b::10.0.0.1]', '[2002:7f00:1::]', '[ff02::1]',
    ];
    for (const host of inside) expect([host, isInward(`http://${host}:7777/`)]).toEqual([host, true]);
    const outside = ['t.example', 'local.example', '172.15.0.1', '172.32.0.1', '11.0.0.1', '100.128.0.1', '8.8.8.8', '[2001:db8::1]', '[2a00:1450::5]', '[::ffff:8.8.8.8]', '[64:ff9b::808:808]'];
    for (const host of outside) expect([host, isInward(`https://${host}/`)]).toEqual([host, false]);
    for (const odd of ['', 'http://', 'ftp://t.example', 'javascript:alert(1)']) expect(isInward(odd)).toBe(true);
    const descriptor = btoa(JSON.stringify({ trackers: ['http://127.0.0.1:9', 'https://t.example', 'http://192.168.0.1'] })).replace(/=+$/, '');
    const entry = { channel: ID, state: 'live', descriptor: { descriptor, signature: '' } };
    expect(linkOf(entry, ['http://127.0.0.1:7777'])).toBe(`caudal:${ID}?tracker=http%3A%2F%2F127.0.0.1%3A7777&tracker=https%3A%2F%2Ft.example`);
  });
  it('are made from a descriptor, with web trackers only', () => {
    const told = { name: 'Ñandú', trackers: ['https://t.example', 'javascript:alert(1)', 5] };
    const descriptor = btoa(String.fromCharCode(...new TextEncoder().encode(JSON.stringify(told)))).replace(/\+/g, '-').replace(/\//g, '_').replace(/=+$/, '');
    const entry = { channel: ID, state: 'live', descriptor: { descriptor, signature: '' } };
    expect(descriptorOf(entry).name).toBe('Ñandú');
    expect(linkOf(entry)).toBe(`caudal:${ID}?tracker=https%3A%2F%2Ft.example&name=%C3%91and%C3%BA`);
    expect(linkOf({ channel: ID, state: 'live', name: `${'x'.repeat(63)}😀` })).toBe(`caudal:${ID}?name=${'x'.repeat(63)}`);
    expect(linkOf({ channel: ID, state: 'live', name: "O'Río" })).toBe(`caudal:${ID}?name=O%27R%C3%ADo`);
    expect(linkOf({ ...entry, channel: '../evil' })).toBeNull();
    expect(linkOf({ ...entry, link: 'javascript:alert(1)' })).toBeNull();
    expect(descriptorOf({ ...entry, descriptor: { descriptor: '%%%', signature: '' } })).toEqual({});
  });
});

describe('history', () => {
  it('takes segments with their init data, and only names beside the playlist', () => {
    const playlist = '#EXTM3U\n#EXT-X-MAP:URI="i0.mp4"\n#EXTINF:1,\na.m4s\n#EXT-X-DISCONTINUITY\n#EXT-X-MAP:URI="i1.mp4"\n#EXTINF:2.5,\nb.m4s\n#EXT-X-PART:DURATION=0.2,URI="p.m4s"\n#EXTINF:1,\nhttps://evil.example/c.m4s\n#EXTINF:1,\nd.m4s\n';
    expect(segments(playlist)).toEqual([{ uri: 'a.m4s', seconds: 1, map: 'i0.mp4' }, { uri: 'b.m4s', seconds: 2.5, map: 'i1.mp4' }, { uri: 'd.m4s', seconds: 1, map: 'i1.mp4' }]);
    expect(segments('#EXT-X-MAP:URI="//evil.example/i.mp4"\n#EXTINF:1,\na.m4s\n')).toEqual([{ uri: 'a.m4s', seconds: 1, map: null }]);
    expect(mediaPlaylist('#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nmedia.m3u8\n')).toBe('media.m3u8');
    expect(mediaPlaylist('#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n//evil.example/m.m3u8\n')).toBeNull();
  });
});

describe('advice', () => {
  const good = { codecs: 'avc1.64001f,mp4a.40.2', width: 1280, height: 720, fps: 30, key_interval_ms: 2000, rate_bps: 3e6, jitter_ms: 20, drift_ms: 0, samples: 1000, discontinuities: 0 };
  it('is silent about a good encoder and names what is wrong with a bad one', () => {
    expect(advise(good)).toEqual([]);
    const bad = { ...good, key_interval_ms: 8300, jitter_ms: 400, fps: 9, codecs: 'avc1.64001f', discontinuities: 2, drift_ms: -5000 };
    expect(advise(bad, 2).map((a) => a.kind)).toEqual(['keyframes', 'jitter', 'breaks', 'fps', 'drift', 'noSound']);
    expect(advise({ ...good, discontinuities: 9 })).toEqual([]);
    expect(advise({ ...bad, samples: 3 }, 2)).toEqual([]);
    expect([2000, 2500, 2501].map((ms) => advise({ ...good, key_interval_ms: ms }).length)).toEqual([0, 0, 1]);
  });
});

describe('breaks', () => {
  it('are news for a minute, and only those that were seen to happen', () => {
    const breaks = new Breaks();
    const at = [[7, 0], [7, 1000], [8, 2000], [8, 3000], [10, 30_000], [10, 2000 + BREAKS_WINDOW_MS], [10, 30_000 + BREAKS_WINDOW_MS], [0, 200_000], [1, 201_000]];
    expect(at.map(([count, now]) => breaks.take(count!, now!))).toEqual([0, 0, 1, 1, 3, 2, 0, 0, 1]);
  });
  it('are counted in words', () => {
    expect([en.desk.health.breaks(1, '1'), es.desk.health.breaks(1, '1')]).toEqual([expect.stringContaining('broke once in'), expect.stringContaining('roto 1 vez en')]);
    expect([en.desk.health.breaks(2, '2'), es.desk.health.breaks(2, '2')]).toEqual([expect.stringContaining('broke 2 times in'), expect.stringContaining('roto 2 veces en')]);
  });
});

describe('languages', () => {
  const keys = (value: unknown, path = ''): string[] =>
    typeof value === 'object' && value !== null ? Object.entries(value).flatMap(([k, v]) => keys(v, `${path}.${k}`)) : [path];
  it('have the same words, none of them empty by mistake', () => {
    expect(keys(es)).toEqual(keys(en));
    const flat = (value: unknown): unknown[] => (typeof value === 'object' && value !== null ? Object.values(value).flatMap(flat) : [value]);
    flat(en).forEach((word, i) => expect(word === '').toBe(flat(es)[i] === ''));
  });
});
