// What the places of the page share: the node, where the viewer is, and the channel that is being opened. Decides who may open
// what; draws nothing.
import { api, ApiError, hasToken } from './api';
import { channelOf } from './link';
import { settings } from './settings';
import type { NodeInfo, Session } from './types';

export type Place = 'list' | 'watch' | 'desk';

/** Pause before a node that did not answer is asked again, ms. */
const RETRY_MS = 1500;

export interface Opening {
  link: string;
  name: string;
  /** When the viewer asked, performance.now(). */
  startedAt: number;
  problem: 'none' | 'noToken' | 'busy' | 'noAnswer' | 'refused';
  detail: string;
}

class App {
  node = $state<NodeInfo | null>(null);
  nodeLost = $state(false);
  place = $state<Place>('list');
  session = $state<Session | null>(null);
  opening = $state<Opening | null>(null);
  /** Waits for the answer to the question about uploading. */
  asking = $state<{ link: string; name: string; again?: boolean } | null>(null);
  upload = $state(settings.upload());
  #told = settings.told();

  async begin(): Promise<void> {
    window.addEventListener('hashchange', () => this.#follow());
    await this.#ask();
    const sessions = this.node?.sessions ?? [];
    const viewing = sessions.find((session) => session.role === 'viewer');
    if (location.hash.length <= 1) {
      if (this.node?.role === 'source' && this.node.can.desk) return this.go('#/desk');
      if (viewing) return this.go(`#/watch/${viewing.id}`);
    }
    this.#follow();
  }

  async #ask(): Promise<void> {
    for (;;) {
      try {
        this.node = await api.node();
        this.nodeLost = false;
        return;
      } catch {
        this.nodeLost = true;
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
      }
    }
  }

  go(hash: string): void {
    if (location.hash === hash) this.#follow();
    else location.hash = hash;
  }

  #follow(): void {
    const [, place = '', id = ''] = location.hash.split('/');
    if (place === 'desk') this.place = 'desk';
    else if (place === 'watch') {
      this.place = 'watch';
      if (id && this.session?.id !== id) void this.#join(id);
    } else {
      this.place = 'list';
      this.opening = null;
    }
  }

  /** Whether this node sends to others at all: not when it was started with --no-upload or --no-p2p. */
  get canUpload(): boolean {
    return this.node?.can.upload !== false;
  }

  get #wish(): boolean {
    return this.canUpload && (this.upload ?? true);
  }

  /** A session that exists already: the address was typed, or the page loaded anew. */
  async #join(id: string): Promise<void> {
    this.opening = { link: '', name: '', startedAt: performance.now(), problem: 'none', detail: '' };
    try {
      const known = this.node?.sessions.find((session) => session.id === id);
      const session = known ?? (await api.sessions()).find((found) => found.id === id);
      if (!session) return this.go('#/');
      this.#opened(session);
    } catch (error) {
      this.#failed(error);
    }
  }

  /** The viewer pressed a channel. */
  open(link: string, name: string): void {
    // Over HTTP alone there is nothing to agree to: nobody sees this address.
    const answered = this.upload !== null || this.node?.can.p2p === false || (!this.canUpload && this.#told);
    if (!answered && hasToken()) this.asking = { link, name };
    else void this.#watch(link, name, this.#wish);
  }

  answer(upload: boolean | null): void {
    const asked = this.asking;
    this.asking = null;
    if (upload === null) return;
    // Where nothing is uploaded the answer says nothing about another node that does.
    if (!this.canUpload) {
      this.#told = true;
      settings.setTold();
      if (asked) void this.#watch(asked.link, asked.name, false);
      return;
    }
    const changed = upload !== this.uploads;
    this.upload = upload;
    settings.setUpload(upload);
    if (asked?.again) {
      if (changed) void this.#rejoin(asked.link, asked.name, upload);
    } else if (asked) void this.#watch(asked.link, asked.name, upload);
  }

  /** Whether what is watched goes on to others: as the node says it; what this browser asked for, where the node is silent. */
  get uploads(): boolean | null {
    return this.session?.upload ?? this.upload;
  }

  /** Asks again, while a channel is being watched. */
  reconsider(): void {
    if (this.session && !this.session.stays) this.asking = { link: this.session.link, name: this.session.name, again: true };
  }

  /** A session keeps what it began with: it is left, and joined anew. */
  async #rejoin(link: string, name: string, upload: boolean): Promise<void> {
    const old = this.session;
    this.session = null;
    this.#forget(old);
    await this.#watch(link, name, upload, old);
  }

  #forget(session: Session | null): void {
    if (this.node && session) this.node.sessions = this.node.sessions.filter((other) => other.id !== session.id);
  }

  /** Opens a channel, after leaving `before`. */
  async #watch(link: string, name: string, upload: boolean, before: Session | null = null): Promise<void> {
    const channel = channelOf(link);
    if (this.session?.channel !== channel) this.session = null;
    this.opening = { link, name, startedAt: performance.now(), problem: 'none', detail: '' };
    this.place = 'watch';
    if (before) history.replaceState(null, '', '#/watch');
    else if (location.hash !== '#/watch') history.pushState(null, '', '#/watch');
    if (!hasToken()) {
      this.opening.problem = 'noToken';
      return;
    }
    const mine = this.opening;
    try {
      // The session that stays although it was to be left is given again as it is.
      const stays = before !== null && (await this.#stays(before));
      if (this.opening !== mine) return;
      const session = await api.watch(link, upload);
      if (this.opening !== mine) return;
      if (stays) session.stays = true;
      history.replaceState(null, '', `#/watch/${session.id}`);
      this.#opened(session);
    } catch (error) {
      if (this.opening === mine) this.#failed(error);
    }
  }

  /** Leaves a session; true when the node does not let it go. */
  async #stays(session: Session): Promise<boolean> {
    try {
      await api.leave(session.id);
      return false;
    } catch (error) {
      return error instanceof ApiError && error.status === 409;
    }
  }

  #opened(session: Session): void {
    this.session = session;
    if (session.role === 'viewer') {
      settings.addRecent({ channel: session.channel, name: session.name, link: session.link, at: Date.now() });
    }
  }

  #failed(error: unknown): void {
    if (!this.opening) return;
    const status = error instanceof ApiError ? error.status : -1;
    this.opening.problem = status === 403 ? 'noToken' : status === 409 ? 'busy' : status === 0 ? 'noAnswer' : 'refused';
    this.opening.detail = error instanceof Error ? error.message : '';
  }

  retry(): void {
    if (this.opening?.link) void this.#watch(this.opening.link, this.opening.name, this.#wish);
    else if (this.session) void this.#join(this.session.id);
  }

  /** Leaves the channel: the node need not receive it any longer. One that stays goes on, and can be returned to. */
  leave(): void {
    const session = this.session;
    if (session?.stays) return this.go('#/');
    this.session = null;
    this.opening = null;
    if (session?.role === 'viewer' && hasToken()) {
      api.leave(session.id).catch(() => {});
      this.#forget(session);
    }
    this.go('#/');
  }
}

export const app = new App();
