// The slower ways to a picture, loaded only when the fast one is not possible: hls.js, then the browser's own HLS.
import type Hls from 'hls.js/light';

/** How a way of playing tells where its picture is on the source's clock, ms since the Unix epoch. */
export interface Fallback {
  kind: 'hls.js' | 'hls';
  shownUnixMs(): number | null;
  close(): void;
}

/** Plays an HLS playlist; `onFatal` is called when this way is at its end, too. */
export async function playHls(video: HTMLVideoElement, url: string, onFatal: (why: string) => void): Promise<Fallback | null> {
  const { default: HlsClass } = await import('hls.js/light');
  if (HlsClass.isSupported()) return withHlsJs(new HlsClass(options), HlsClass, video, url, onFatal);
  if (!video.canPlayType('application/vnd.apple.mpegurl')) return null;
  video.src = url;
  const failed = () => onFatal(video.error?.message ?? '');
  video.addEventListener('error', failed);
  return {
    kind: 'hls',
    shownUnixMs: () => {
      const start = (video as HTMLVideoElement & { getStartDate?: () => Date }).getStartDate?.().getTime();
      return start !== undefined && Number.isFinite(start) ? start + video.currentTime * 1000 : null;
    },
    close: () => {
      video.removeEventListener('error', failed);
      video.removeAttribute('src');
      video.load();
    },
  };
}

const options = {
  lowLatencyMode: true,
  // A worker would be a script from a blob, which the content security policy has no need to allow.
  enableWorker: false,
  backBufferLength: 60,
  maxLiveSyncPlaybackRate: 1.05,
};

function withHlsJs(hls: Hls, HlsClass: typeof Hls, video: HTMLVideoElement, url: string, onFatal: (why: string) => void): Fallback {
  let recovered = false;
  hls.on(HlsClass.Events.ERROR, (_event, data) => {
    if (!data.fatal) return;
    if (data.type === HlsClass.ErrorTypes.MEDIA_ERROR && !recovered) {
      recovered = true;
      hls.recoverMediaError();
    } else onFatal(data.details);
  });
  hls.loadSource(url);
  hls.attachMedia(video);
  return {
    kind: 'hls.js',
    shownUnixMs: () => hls.playingDate?.getTime() ?? null,
    close: () => hls.destroy(),
  };
}
