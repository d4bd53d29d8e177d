// Talks to the node that serves this page: its token, its URLs, JSON requests and server-sent events. Never talks to anybody
// else, and never keeps the token longer than the tab lives.
import type { DeskInfo, NodeInfo, Session, TraceView } from './types';

const TOKEN_KEY = 'caudal.token';
/** An answer must begin within this, ms; streams are not bound by it. */
const REQUEST_TIMEOUT_MS = 10_000;
/** First and longest pause before events are asked for again, ms. */
const RETRY_FIRST_MS = 500;
const RETRY_MAX_MS = 5_000;

let token: string | null = null;

/** What went wrong with a request: `status` 0 when nobody answered. */
export class ApiError extends Error {
  constructor(readonly status: number, message: string) {
    super(message);
  }
}

/** Takes the token out of the address bar (`#token=T`) into this tab's memory. */
export function takeToken(): void {
  const found = /^#token=([A-Za-z0-9_-]{8,128})(.*)$/.exec(location.hash);
  const below = /^\/t\/([A-Za-z0-9_-]{8,128})\//.exec(location.pathname);
  if (found) {
    history.replaceState(null, '', location.pathname + location.search + (found[2] ?? ''));
  }
  const fresh = found?.[1] ?? below?.[1];
  try {
    if (fresh) sessionStorage.setItem(TOKEN_KEY, fresh);
    token = fresh ?? sessionStorage.getItem(TOKEN_KEY);
  } catch {
    token = fresh ?? null;
  }
}

/** Whether this page may change anything on its node. */
export function hasToken(): boolean {
  return token !== null;
}

function isLoopback(): boolean {
  return /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/.test(location.hostname);
}

/** The URL of a path of the node. Media and events cannot carry a header, so beyond loopback the token is in the path. */
export function url(path: string): string {
  const below = /^\/t\/[^/]+(?=\/)/.exec(location.pathname)?.[0];
  const prefix = below ?? (token && !isLoopback() ? `/t/${token}` : '');
  return prefix + path;
}

async function request<T>(method: string, path: string, body?: unknown): Promise<T> {
  const headers: Record<string, string> = {};
  if (token) headers['X-Caudal-Token'] = token;
  if (body !== undefined) headers['Content-Type'] = 'application/json';
  let answer: Response;
  try {
    answer = await fetch(url(path), {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: AbortSignal.timeout?.(REQUEST_TIMEOUT_MS),
      cache: 'no-store',
    });
  } catch {
    throw new ApiError(0, '');
  }
  if (!answer.ok) {
    const said = (await answer.json().catch(() => null)) as { error?: string } | null;
    throw new ApiError(answer.status, said?.error ?? '');
  }
  if (answer.status === 204) return undefined as T;
  return (await answer.json()) as T;
}

export const api = {
  node: () => request<NodeInfo>('GET', '/api/v1/node'),
  sessions: () => request<Session[]>('GET', '/api/v1/sessions'),
  watch: (link: string, upload: boolean) => request<Session>('POST', '/api/v1/sessions', { link, upload }),
  leave: (id: string) => request<void>('DELETE', `/api/v1/sessions/${encodeURIComponent(id)}`),
  setRendition: (id: string, rendition: string) =>
    request<void>('POST', `/api/v1/sessions/${encodeURIComponent(id)}/rendition`, { rendition }),
  desk: () => request<DeskInfo>('GET', '/api/v1/desk'),
  trace: () => request<{ trace: TraceView | null }>('GET', '/api/v1/desk/trace'),
  setListed: (listed: boolean) => request<void>('POST', '/api/v1/desk/listed', { listed }),
  stop: () => request<void>('POST', '/api/v1/desk/stop', {}),
};

/** Listens to server-sent events and goes on after every break; gives what ends it. `onUp` tells whether somebody is there. */
export function listen(
  path: string,
  handlers: Record<string, (data: unknown) => void>,
  onUp: (up: boolean) => void = () => {},
): () => void {
  let source: EventSource | undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let pause = RETRY_FIRST_MS;
  let closed = false;

  const open = () => {
    source = new EventSource(url(path));
    source.onopen = () => {
      pause = RETRY_FIRST_MS;
      onUp(true);
    };
    source.onerror = () => {
      onUp(false);
      // The browser's own retry gives up for good on an error status, and says nothing of its pauses: ours does neither.
      source?.close();
      if (closed) return;
      timer = setTimeout(open, pause);
      pause = Math.min(pause * 2, RETRY_MAX_MS);
    };
    for (const [name, handle] of Object.entries(handlers)) {
      source.addEventListener(name, (event) => {
        let data: unknown;
        try {
          data = JSON.parse((event as MessageEvent<string>).data);
        } catch {
          return; // Not for us: a newer server may say things that we do not know.
        }
        handle(data);
      });
    }
  };
  open();
  return () => {
    closed = true;
    clearTimeout(timer);
    source?.close();
  };
}
