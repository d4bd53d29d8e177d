// A node that is none, for developing the page: answers docs/http.md with the media of a real `caudal watch` and its report.
//
//   node dev/mock.mjs --upstream http://127.0.0.1:PORT [--source http://127.0.0.1:PORT] [--port 8099] [--role viewer|source|tracker]
//        [--tracker http://127.0.0.1:PORT] [--caudal PROGRAM]
//
// Serves web/dist with the same content security policy as the node does. With --tracker the list is that tracker's; with
// --caudal each session is a `caudal watch` of its own, which joins when the page asks for it.
import { spawn } from 'node:child_process';
import { createReadStream, existsSync, statSync } from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const { values: args } = parseArgs({
  options: { upstream: { type: 'string' }, source: { type: 'string' }, port: { type: 'string', default: '8099' }, role: { type: 'string', default: 'viewer' }, tracker: { type: 'string' }, caudal: { type: 'string' } },
});
const DIST = path.join(path.dirname(fileURLToPath(import.meta.url)), '../dist');
const TOKEN = 'mock-token-1234';
const CSP = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const TYPES = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml' };

const id = (c) => c.repeat(52).slice(0, 52);
const descriptor = (fields) => ({ descriptor: Buffer.from(JSON.stringify(fields)).toString('base64url'), signature: '' });
const entry = (channel, viewers, fields, more = {}) => ({ channel, state: 'live', viewers, name: fields.name, descriptor: descriptor({ channel, issued_unix_ms: Date.now() - 3.6e6, trackers: ['http://127.0.0.1:7777'], listed: true, ...fields }), ...more });
const channels = [
  entry(id('abc2'), 1284, { name: 'Río Abierto', description: 'El río a su paso por la ciudad, día y noche.', language: 'es' }, { quality: { reports: 40, continuity: 0.998 } }),
  entry(id('qrs7'), 312, { name: 'Harbour Radio TV', description: 'Ships, weather, and talk from the pier.', language: 'en-GB' }, { quality: { reports: 9, continuity: 0.95 } }),
  entry(id('xyz4'), 3, { name: 'Câmara Municipal', description: 'Sessão ordinária em direto.', language: 'pt-BR', issued_unix_ms: Date.now() - 9000 }),
  entry(id('mno5'), 27, { name: 'Aula 3', description: '', language: 'es-MX' }),
];
const send = (res, event, data) => res.write(`event: ${event}\ndata: ${JSON.stringify(data)}\n\n`);

async function stats(base) {
  try {
    return await (await fetch(`${base}/api/v1/stats`)).json();
  } catch {
    return null;
  }
}

// The newest part's clock and media time, read from the stream itself.
const newest = {};
async function follow(base) {
  for (let tries = 0; tries < 20; tries += 1) {
    try {
      const res = await fetch(`${base}/live.mp4`);
      let held = Buffer.alloc(0);
      for await (const piece of res.body) {
        held = Buffer.concat([held, piece]);
        while (held.length >= 8 && held.length >= held.readUInt32BE(0)) {
          const box = held.subarray(0, held.readUInt32BE(0));
          if (box.toString('latin1', 4, 8) === 'prft') {
            const unix = (box.readUInt32BE(16) - 2208988800) * 1000 + (box.readUInt32BE(20) / 2 ** 32) * 1000;
            const wide = box[8] === 1;
            newest[base] = { unix: unix + 200, media: Number(wide ? box.readBigUInt64BE(24) : BigInt(box.readUInt32BE(24))) };
          }
          if (box.toString('latin1', 4, 8) === 'moov') newest.scale = box.readUInt32BE(box.indexOf('mdhd') + 16);
          held = held.subarray(box.length);
        }
      }
    } catch { /* again */ }
    await new Promise((r) => setTimeout(r, 500));
  }
}

const session = { id: '0a1b2c3d', channel: id('abc2'), name: 'Río Abierto', link: `caudal:${id('abc2')}?tracker=http%3A%2F%2F127.0.0.1%3A7777&name=R%C3%ADo%20Abierto`, role: args.role === 'source' ? 'source' : 'viewer', state: 'live', reason: null, live: '/s/0a1b2c3d/live.mp4', hls: '/s/0a1b2c3d/hls/index.m3u8', retention_ms: 60000 };
let sessions = args.role === 'source' ? [session] : [];
const joined = new Map();
const base = (id) => joined.get(id)?.http ?? (args.role === 'source' ? args.source : args.upstream);

/** A `caudal watch` for one session. */
function join(link) {
  const id = Math.random().toString(16).slice(2, 10).padEnd(8, '0');
  const child = spawn(args.caudal, ['watch', link, '--json'], { stdio: ['ignore', 'pipe', 'ignore'] });
  return new Promise((resolve, reject) => {
    child.on('exit', () => reject(new Error('it ended')));
    child.stdout.once('data', (line) => {
      const { http } = JSON.parse(String(line).split('\n')[0]);
      joined.set(id, { http, child });
      void follow(http);
      resolve(id);
    });
  });
}
process.on('exit', () => joined.forEach(({ child }) => child.kill('SIGKILL')));
process.on('SIGTERM', () => process.exit(0));

const history = Array.from({ length: 120 }, (_, i) => ({ at_ms: i * 5000, viewers: Math.round(20 + 14 * Math.sin(i / 19) + i / 6), offload: 0.9 + 0.06 * Math.sin(i / 8), continuity: 0.995 - (i % 37 === 0 ? 0.06 : 0), upload_bps: 4e6 + 8e5 * Math.sin(i / 5) }));
let listed = true;
const QR = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 21 21" shape-rendering="crispEdges"><path d="M0 0h7v7H0zM14 0h7v7h-7zM0 14h7v7H0z"/><path fill="#fff" d="M1 1h5v5H1zM15 1h5v5h-5zM1 15h5v5H1z"/><path d="M2 2h3v3H2zM16 2h3v3h-3zM2 16h3v3H2zM9 1h1v2h2v1H9zM8 8h2v1h1v2h2V9h2v2h1v3h-2v2h-3v2H9v-4h2v-1H8zM17 16h3v1h-2v3h-1z"/></svg>';
const info = () => ({ schema: 1, role: args.role, version: '0.1.0', commit: 'mock', can: { watch: args.role === 'viewer', desk: args.role === 'source' }, channels: args.role === 'source' ? null : '/api/v1/channels/events', sessions });

function pass(to, res) {
  const up = http.get(to, (answer) => { res.writeHead(answer.statusCode, answer.headers); answer.pipe(res); });
  up.on('error', () => res.destroy());
  res.on('close', () => up.destroy());
}

http.createServer(async (req, res) => {
  const url = new URL(req.url, 'http://x');
  res.setHeader('Content-Security-Policy', CSP);
  res.setHeader('X-Content-Type-Options', 'nosniff');
  const json = (status, data) => { res.writeHead(status, { 'Content-Type': 'application/json', 'Cache-Control': 'no-store' }); res.end(data === undefined ? '' : JSON.stringify(data)); };
  const events = () => res.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-store' });
  const body = async () => { let text = ''; for await (const piece of req) text += piece; return JSON.parse(text || '{}'); };
  const p = url.pathname;
  const denied = () => (req.headers['x-caudal-token'] === TOKEN ? false : (json(403, { error: 'the token is missing: open the address that caudal printed' }), true));
  if (p === '/api/v1/node') return json(200, info());
  if (p === '/api/v1/channels/events' && args.tracker) return pass(`${args.tracker}/v1/channels/events`, res);
  if (p === '/api/v1/channels/events') { events(); return send(res, 'snapshot', { channels, total: channels.length }); }
  if (p === '/api/v1/sessions' && req.method === 'GET') return json(200, sessions);
  if (p === '/api/v1/sessions' && req.method === 'POST') { if (denied()) return; const { link } = await body(); const same = sessions.find((s) => s.link === link); if (same) return json(200, same); const id = args.caudal ? await join(link) : session.id; sessions = [{ ...session, name: decodeURIComponent(/name=([^&]*)/.exec(link)?.[1] ?? session.name), channel: link.slice(7, 59), link, id, live: `/s/${id}/live.mp4`, hls: `/s/${id}/hls/index.m3u8` }]; return json(201, sessions[0]); }
  if (p.startsWith('/api/v1/sessions/') && req.method === 'DELETE') { if (denied()) return; sessions = []; joined.get(p.split('/')[4])?.child.kill('SIGTERM'); return json(204); }
  if (p.endsWith('/events')) {
    events();
    const tell = async () => {
      const report = await stats(base(p.split('/')[4]));
      const n = newest[base(p.split('/')[4])];
      if (report) send(res, 'report', { ...report, gauge: { edge_behind_ms: n ? Math.round(Date.now() - n.unix) : null, buffer_ms: report.buffer_ms, rate_bps: report.rate_bps, last_part_unix_ms: n?.unix ?? null, last_part_media_ms: n ? (n.media / (newest.scale || 90000)) * 1000 + 200 : null } });
    };
    void tell();
    const timer = setInterval(tell, 1000);
    req.on('close', () => clearInterval(timer));
    return;
  }
  if (p === '/api/v1/desk') { if (denied()) return; return json(200, { name: 'Río Abierto', description: 'El río a su paso por la ciudad, día y noche.', language: 'es', listed, link: session.link, rtmp_url: 'rtmp://127.0.0.1:1935/live', stream_key: 'k7f3-q2mx-9d4p-hw8a', input: 'rtmp', qr: QR, history, session: session.id, upload_limit_bps: 8e6 }); }
  if (p === '/api/v1/desk/listed') { if (denied()) return; listed = (await body()).listed; return json(204); }
  if (p === '/api/v1/desk/stop') { if (denied()) return; return json(204); }
  if (p.startsWith('/s/')) {
    if (!base(p.split('/')[2])) return json(404, { error: 'no such session' });
    return pass(base(p.split('/')[2]) + p.replace(/^\/s\/[^/]+/, '') + url.search, res);
  }
  const file = path.join(DIST, p === '/' ? 'index.html' : path.normalize(p));
  if (!file.startsWith(DIST) || !existsSync(file) || !statSync(file).isFile()) return json(404, { error: 'no such page' });
  res.writeHead(200, { 'Content-Type': TYPES[path.extname(file)] ?? 'application/octet-stream' });
  createReadStream(file).pipe(res);
}).listen(Number(args.port), '127.0.0.1', function () { console.log(`http://127.0.0.1:${this.address().port}/#token=${TOKEN}`); });
for (const upstream of [args.upstream, args.source]) if (upstream) void follow(upstream);
