// Follows one session of the node: its reports, its state, and the last minutes of them for the charts. Never decides anything.
import { listen } from './api';
import type { Peer, Report, Session, SessionState } from './types';

/** How far the charts reach back, ms, and the most points they have. */
export const WINDOW_MS = 120_000;
const POINTS_MAX = 150;
/** A node that says nothing for so long does not answer, ms. */
const PATIENCE_MS = 2500;

export interface Point {
  at: number;
  value: number | null;
}

export interface PeerRate extends Peer {
  in: number;
  out: number;
}

export class Follow {
  report = $state.raw<Report | null>(null);
  peers = $state.raw<PeerRate[]>([]);
  state = $state<SessionState>('joining');
  reason = $state('');
  up = $state(true);
  continuity = $state.raw<Point[]>([]);
  delay = $state.raw<Point[]>([]);
  stalls = $state.raw<Point[]>([]);
  #before: Report | undefined;
  #stop: () => void;
  #silence: ReturnType<typeof setTimeout> | undefined;

  constructor(
    session: Session,
    private readonly onReport: (report: Report) => { delay: number | null; stalls: number } | void = () => {},
  ) {
    this.state = session.state;
    this.reason = session.reason ?? '';
    this.#stop = listen(
      `/api/v1/sessions/${encodeURIComponent(session.id)}/events`,
      {
        report: (data) => this.#take(data as Report),
        state: (data) => this.#tell(data as { state?: SessionState; reason?: string | null }),
      },
      (up) => this.#heard(up),
    );
  }

  close(): void {
    clearTimeout(this.#silence);
    this.#stop();
  }

  /** One broken connection is no news: the next one is there in half a second. */
  #heard(up: boolean): void {
    if (up) {
      clearTimeout(this.#silence);
      this.#silence = undefined;
      this.up = true;
    } else this.#silence ??= setTimeout(() => (this.up = false), PATIENCE_MS);
  }

  #tell(told: { state?: SessionState; reason?: string | null }): void {
    if (told.state) this.state = told.state;
    this.reason = told.reason ?? '';
  }

  #take(report: Report): void {
    const at = performance.now();
    const peers = Array.isArray(report.peers) ? report.peers : [];
    this.peers = peers.map((peer) => ({ ...peer, in: peer.rate_in_bps ?? 0, out: peer.rate_out_bps ?? 0 }));
    if (report.state) this.state = report.state;
    this.report = report;
    const shown = this.onReport(report);
    this.continuity = add(this.continuity, at, since(this.#before, report));
    this.delay = add(this.delay, at, shown?.delay ?? null);
    this.stalls = add(this.stalls, at, shown?.stalls ?? 0);
    this.#before = report;
  }
}

/** Share of the chunks that were due since the last report and came in time. */
function since(before: Report | undefined, now: Report): number | null {
  if (!now.chunks) return null;
  const due = now.chunks.due - (before?.chunks?.due ?? 0);
  const inTime = now.chunks.on_time - (before?.chunks?.on_time ?? 0);
  return due > 0 ? Math.min(1, Math.max(0, inTime / due)) : null;
}

function add(points: Point[], at: number, value: number | null): Point[] {
  return [...points, { at, value }].filter((point) => at - point.at <= WINDOW_MS).slice(-POINTS_MAX);
}
