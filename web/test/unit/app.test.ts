// Who uploads: what the page asks, what it says, and what *Change* does, against a node that keeps sessions as the real one does.
import { beforeEach, describe, expect, it, vi } from 'vitest';
import type { Session } from '../../src/lib/types';

const LINK = `caudal:${'a'.repeat(52)}`;
const node = vi.hoisted(() => ({ sessions: [] as Session[], asked: [] as string[], next: 0, upload: true as boolean | undefined }));

vi.mock('../../src/lib/api', () => {
  class ApiError extends Error {
    constructor(readonly status: number) {
      super('');
    }
  }
  const watch = async (link: string, upload: boolean) => {
    node.asked.push(`POST ${upload}`);
    const found = node.sessions.find((session) => session.link === link);
    if (found) return { ...found };
    node.next += 1;
    const made = { id: `s${node.next}`, channel: link.slice(7), name: 'Río', link, role: 'viewer', state: 'joining', reason: null, live: '', hls: '', retention_ms: 1, upload, stays: false } as Session;
    node.sessions.push(made);
    return { ...made };
  };
  const leave = async (id: string) => {
    node.asked.push(`DELETE ${id}`);
    if (node.sessions.find((session) => session.id === id)?.stays) throw new ApiError(409);
    node.sessions = node.sessions.filter((session) => session.id !== id);
  };
  const told = async () => ({ schema: 1, role: 'viewer', version: '', can: { watch: true, desk: false, upload: node.upload }, channels: null, sessions: node.sessions.map((s) => ({ ...s })) });
  return { ApiError, hasToken: () => true, api: { watch, leave, node: told, sessions: async () => node.sessions } };
});

/** The page as it is loaded: with what its browser remembers, and the node's sessions. */
async function load(remembered: Record<string, string>, hash = '#/') {
  const store = new Map(Object.entries(remembered));
  const place = { hash };
  vi.stubGlobal('localStorage', { getItem: (k: string) => store.get(k) ?? null, setItem: (k: string, v: string) => void store.set(k, v), removeItem: (k: string) => void store.delete(k) });
  vi.stubGlobal('location', place);
  vi.stubGlobal('history', { pushState: (_: unknown, __: string, to: string) => (place.hash = to), replaceState: (_: unknown, __: string, to: string) => (place.hash = to) });
  vi.stubGlobal('window', { addEventListener: () => {} });
  vi.resetModules();
  const { app } = await import('../../src/lib/app.svelte');
  await app.begin();
  return { app, place, store };
}
const done = () => new Promise((resolve) => setTimeout(resolve, 0));

beforeEach(() => Object.assign(node, { sessions: [], asked: [], next: 0, upload: true }));

describe('uploading', () => {
  it('is changed by leaving the session and joining anew', async () => {
    const { app, place } = await load({ 'caudal.upload': 'true' });
    app.open(LINK, 'Río');
    await done();
    expect([app.uploads, app.session?.id, place.hash]).toEqual([true, 's1', '#/watch/s1']);
    app.reconsider();
    app.answer(false);
    await done();
    expect(node.asked).toEqual(['POST true', 'DELETE s1', 'POST false']);
    expect([app.uploads, app.session?.id, place.hash]).toEqual([false, 's2', '#/watch/s2']);
    app.reconsider();
    app.answer(false);
    await done();
    expect(node.asked).toHaveLength(3);
  });

  it('is what the session does, whatever the browser remembers', async () => {
    await load({});
    node.sessions = [{ id: 'c1', channel: 'a'.repeat(52), name: 'Río', link: LINK, role: 'viewer', state: 'live', reason: null, live: '', hls: '', retention_ms: 1, upload: true, stays: true }];
    const { app } = await load({ 'caudal.upload': 'false' }, '#/watch/c1');
    expect([app.session?.id, app.uploads]).toEqual(['c1', true]);
    app.reconsider();
    expect(app.asking).toBeNull();
    app.leave();
    expect([node.asked, app.session?.id]).toEqual([[], 'c1']);
  });

  it('stays as it is where the node does not let the session go', async () => {
    const { app } = await load({ 'caudal.upload': 'true' });
    app.open(LINK, 'Río');
    await done();
    node.sessions[0]!.stays = true;
    app.reconsider();
    app.answer(false);
    await done();
    expect([app.session?.id, app.session?.stays, app.uploads]).toEqual(['s1', true, true]);
  });

  it('is not asked about where the node does none, and the address is told of once', async () => {
    node.upload = false;
    const { app, store } = await load({});
    expect(app.canUpload).toBe(false);
    app.open(LINK, 'Río');
    expect(app.asking).not.toBeNull();
    app.answer(true);
    await done();
    expect([node.asked, app.uploads, store.get('caudal.upload')]).toEqual([['POST false'], false, undefined]);
    app.open(LINK, 'Río');
    expect(app.asking).toBeNull();
    const again = await load(Object.fromEntries(store));
    again.app.open(LINK, 'Río');
    expect(again.app.asking).toBeNull();
  });

  it('is the browser’s wish where an older node is silent about it', async () => {
    node.upload = undefined;
    const { app } = await load({ 'caudal.upload': 'false' });
    node.sessions = [{ id: 'o1', channel: 'a'.repeat(52), name: '', link: LINK, role: 'viewer', state: 'live', reason: null, live: '', hls: '', retention_ms: 1 }];
    app.open(LINK, '');
    await done();
    expect([app.canUpload, app.uploads]).toEqual([true, false]);
  });
});
