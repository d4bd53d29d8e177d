// The shapes that the node and the tracker answer with (docs/http.md, docs/tracker.md). Nothing but types: what comes over
// the wire may be older or newer than this page, so every member that is not the point of a message is optional.

/** What stands in `GET /api/v1/node`. */
export interface NodeInfo {
  schema: number;
  role: 'viewer' | 'source' | 'edge' | 'tracker';
  version: string;
  commit?: string;
  /** `upload` is false where the node was started with --no-upload or --no-p2p, `p2p` with the latter. */
  can: { watch: boolean; desk: boolean; upload?: boolean; p2p?: boolean };
  channels: string | null;
  sessions: Session[];
}

export type SessionState =
  | 'joining' | 'live' | 'waiting' | 'ended' | 'taken down' | 'unreachable' | 'silent';

/** One channel that the node receives or publishes. */
export interface Session {
  id: string;
  channel: string;
  name: string;
  link: string;
  role: 'viewer' | 'source';
  state: SessionState;
  reason: string | null;
  live: string;
  hls: string;
  retention_ms: number;
  /** Whether it sends to other viewers. */
  upload?: boolean;
  /** It was begun on the command line: Ctrl-C there ends it, DELETE does not. */
  stays?: boolean;
}

/** A channel as a directory lists it. */
export interface Entry {
  channel: string;
  state: string;
  name?: string;
  descriptor?: { descriptor: string; signature: string };
  viewers?: number;
  since_unix_ms?: number | null;
  link?: string;
  /** Means over the viewers that reported; absent while there are fewer than two of them. */
  quality?: { reports?: number; continuity?: number } | null;
  takedown?: { reason: string };
}

/** The members of a descriptor that are shown. */
export interface Descriptor {
  name?: string;
  description?: string;
  language?: string;
  trackers?: string[];
  issued_unix_ms?: number;
}

export interface Peer {
  peer: string;
  source: boolean;
  useful_bytes_in: number;
  bytes_out: number;
  rtt_ms: number;
  parent_in: number;
  child_in: number;
  rate_in_bps?: number;
  rate_out_bps?: number;
  substreams_in?: number[];
  substreams_out?: number[];
  /** It is in the node's own network; absent where no map says so. */
  inside?: boolean | null;
}

/** The network that the node is in, by a map of the network, and the shares of what it receives and sends that stay inside. */
export interface Network {
  pid: string | null;
  received_inside: number | null;
  sent_inside: number | null;
  map_age_ms?: number | null;
}

/** How the newest part that players can have relates to the source's clock and to the media's. */
export interface NodeGauge {
  edge_behind_ms: number | null;
  buffer_ms?: number;
  rate_bps?: number;
  rate_in_bps?: number;
  rate_out_bps?: number;
  last_part_unix_ms?: number | null;
  last_part_media_ms?: number | null;
  wanted_ms?: number | null;
  wanted_most_ms?: number | null;
}

/** One rendition of a channel, as its descriptor says; in a source's report with what arrives of it instead. */
export interface Rendition {
  id: number;
  height?: number;
  bandwidth_bps: number;
  input?: InputReport;
}

/** A viewer's or a source's report: the members that are shown. The rest is passed on as it came. */
export interface Report {
  role: 'viewer' | 'source';
  channel: string;
  peer: string;
  state: SessionState;
  duration_ms: number;
  rate_bps: number;
  peers: Peer[];
  bytes_out: number;
  useful_bytes: number;
  gauge?: NodeGauge;
  network?: Network;
  // viewer
  rendition?: number;
  /** `auto`, a number or a height. */
  rendition_wanted?: string;
  renditions?: Rendition[];
  startup_ms?: number | null;
  chunks?: { due: number; on_time: number; late: number; missing: number; duplicate: number };
  duplicate_ratio?: number;
  offload_ratio?: number;
  useful_bytes_from_source?: number;
  chunk_delay_ms?: { p50: number; p95: number };
  continuity?: Record<string, number>;
  stalls?: number;
  gaps?: number;
  upload_capacity_bps?: number;
  // source
  viewers?: number;
  source_copies?: number;
  input?: InputReport;
  advice?: string[];
  [other: string]: unknown;
}

export interface InputReport {
  codecs: string;
  width: number;
  height: number;
  fps: number;
  key_interval_ms: number | null;
  rate_bps: number;
  jitter_ms: number;
  drift_ms: number;
  samples: number;
  /** A counter: it only grows, or begins anew. */
  discontinuities: number;
}

export interface DeskInfo {
  name: string;
  description: string;
  language: string;
  listed: boolean;
  link: string;
  rtmp_url: string | null;
  stream_key: string | null;
  input: 'rtmp' | 'file' | 'card';
  qr: string;
  history: HistoryPoint[];
  session: string;
  upload_limit_bps?: number | null;
  price_per_gb?: number | null;
  month_estimate?: { gigabytes: number; cost: number | null } | null;
  delivery?: 'hybrid' | 'swarm-only' | 'server-only';
  audience?: AudienceFigures | null;
}

/** Means over those viewers that report, as their tracker gives them. */
export interface AudienceFigures {
  reports: number;
  edge_ratio?: number;
  startup_ms?: number;
  delay_p50_ms?: number;
  delay_p95_ms?: number;
  buffer_ms?: number;
  stalls?: number;
  /** By rendition, those that two viewers or more have. */
  renditions?: { id: number; viewers: number }[];
}

/** A traced chunk's tree, from the root downwards; times in ms. */
export interface TraceView {
  epoch: number;
  number: number;
  captured_unix_ms: number;
  rows: TraceRow[];
  summary: { reported: number; gaps: number; depth: number; hop_p50_ms: number | null; hop_p95_ms: number | null; lag_max_ms: number | null };
  forged: number;
}

export interface TraceRow {
  /** `silent`: named by another, without a report of its own; `gap`: peers that do not report. */
  kind: 'source' | 'peer' | 'silent' | 'gap';
  depth: number;
  parent: number | null;
  peer: string | null;
  count: number;
  requested: boolean;
  lag_ms: number | null;
  travelled_ms: number | null;
  hop_ms: number | null;
  across: boolean;
  clock_ms: number | null;
  queue_ms: number | null;
  way_ms: number | null;
}

export interface HistoryPoint {
  at_ms: number;
  viewers: number | null;
  offload: number | null;
  continuity: number | null;
  upload_bps: number | null;
}
