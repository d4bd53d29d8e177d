//! The renditions of an edge's channel as players may choose from them: what the channel says of each, and its window.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use caudal_media::hls::{MEDIA_URI, Playlist, RenditionReport, Variant, multivariant_playlist};
use caudal_proto::id::RenditionId;
use caudal_tracker::descriptor::Rendition;

use crate::live::Live;

/// What players may choose from.
#[derive(Debug, Default)]
pub struct Variants(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// As the channel's descriptor names them, in its order: the best first.
    offered: Vec<Rendition>,
    /// Those beside the first that come in.
    lives: Vec<(RenditionId, Arc<Live>)>,
}

impl Variants {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The channel's descriptor names these.
    pub(crate) fn offer(&self, offered: Vec<Rendition>) {
        self.lock().offered = offered;
    }

    /// One more comes in.
    pub(crate) fn add(&self, rendition: RenditionId, live: Arc<Live>) {
        self.lock().lives.push((rendition, live));
    }

    /// One does not come in any more.
    pub(crate) fn remove(&self, rendition: RenditionId) {
        self.lock().lives.retain(|(known, _)| *known != rendition);
    }

    /// The window of one beside the first.
    pub(crate) fn live(&self, rendition: RenditionId) -> Option<Arc<Live>> {
        let inner = self.lock();
        inner.lives.iter().find(|(known, _)| *known == rendition).map(|(_, live)| Arc::clone(live))
    }

    /// The multivariant playlist of those that have begun to come; none where that is the first one alone, whose own playlist says more.
    pub(crate) fn playlist(&self, first: &Live) -> Option<String> {
        let inner = self.lock();
        let variant = |one: &Rendition| {
            let (uri, live) = match one.rendition() {
                RenditionId(0) => (MEDIA_URI.to_owned(), first),
                other => {
                    let (_, live) = inner.lives.iter().find(|(known, _)| *known == other)?;
                    (format!("{}/{MEDIA_URI}", other.0), &**live)
                }
            };
            live.playlist(|playlist| playlist.tracks().is_some()).then_some(())?;
            // Players read this once: what the channel says counts where less has come of late.
            let (told, rates) = (one.bandwidth_bps, live.playlist(Playlist::rates));
            Some(Variant {
                uri,
                codecs: one.codecs.clone(),
                peak_bps: rates.map_or(told, |rates| rates.peak_bps.max(told)),
                average_bps: rates.map(|rates| rates.average_bps),
                resolution: one.width.zip(one.height),
                frames_per_second: one.fps,
            })
        };
        let variants: Vec<Variant> = inner.offered.iter().filter_map(variant).collect();
        let is_first_alone = variants.iter().all(|variant| variant.uri == MEDIA_URI);
        (!is_first_alone).then(|| multivariant_playlist(&variants))
    }
}

impl Variants {
    /// What the media playlist of `own` says of the others; nothing where it is the only one.
    pub(crate) fn reports(&self, own: RenditionId, first: &Live) -> Vec<RenditionReport> {
        let inner = self.lock();
        let up = if own == RenditionId(0) { "" } else { "../" };
        let others = inner.lives.iter().map(|(id, live)| (format!("{up}{}/{MEDIA_URI}", id.0), *id, &**live));
        let all = [(format!("{up}{MEDIA_URI}"), RenditionId(0), first)].into_iter().chain(others);
        let report = |(uri, _, live): (String, RenditionId, &Live)| {
            live.playlist(Playlist::last_part).map(|last| RenditionReport { uri, last })
        };
        let is_offered = |id: RenditionId| inner.offered.iter().any(|one| one.rendition() == id);
        all.filter(|(_, id, _)| *id != own && is_offered(*id)).filter_map(report).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::record::tests::part;

    fn rendition(id: u8, height: Option<u32>, fps: Option<f64>) -> Rendition {
        let (codecs, width) = ("avc1.64001f,mp4a.40.2".to_owned(), height.map(|height| height * 16 / 9));
        Rendition { id, codecs, width, height, fps, bandwidth_bps: 1_000_000 * u64::from(9 - id) }
    }

    fn window() -> Arc<Live> {
        Live::new(Duration::from_secs(60))
    }

    #[test]
    fn there_is_one_variant_for_each_rendition_that_has_begun() {
        let (variants, first, second) = (Variants::default(), window(), window());
        first.push(part());
        variants.offer(vec![
            rendition(0, Some(720), Some(29.97)),
            rendition(2, Some(360), Some(25.0)),
            rendition(3, None, None),
        ]);
        assert_eq!(variants.playlist(&first), None, "the first one alone");
        variants.add(RenditionId(2), Arc::clone(&second));
        assert_eq!(variants.playlist(&first), None, "the other has not begun");
        second.push(part());
        let head = "#EXTM3U\n#EXT-X-VERSION:9\n#EXT-X-INDEPENDENT-SEGMENTS\n";
        let codecs = "CODECS=\"avc1.64001f,mp4a.40.2\"";
        let low = format!(
            "#EXT-X-STREAM-INF:BANDWIDTH=7000000,{codecs},RESOLUTION=640x360,FRAME-RATE=25.000\n2/live.m3u8\n"
        );
        let both = format!(
            "{head}#EXT-X-STREAM-INF:BANDWIDTH=9000000,{codecs},RESOLUTION=1280x720,FRAME-RATE=29.970\nlive.m3u8\n{low}"
        );
        assert_eq!(variants.playlist(&first), Some(both));
        assert_eq!(variants.playlist(&window()), Some(format!("{head}{low}")), "what has come");
        let third = window();
        third.push(part());
        variants.add(RenditionId(3), third);
        let sound = format!("#EXT-X-STREAM-INF:BANDWIDTH=6000000,{codecs}\n3/live.m3u8\n");
        assert!(variants.playlist(&first).is_some_and(|text| text.ends_with(&sound)));
        variants.remove(RenditionId(2));
        variants.remove(RenditionId(3));
        assert_eq!(variants.playlist(&first), None);
    }
    #[test]
    fn a_media_playlist_says_how_far_the_others_have_come() {
        let (variants, first, second) = (Variants::default(), window(), window());
        variants.offer(vec![rendition(0, Some(720), None), rendition(2, Some(360), None)]);
        assert_eq!(variants.reports(RenditionId(0), &first), []);
        first.push(part());
        second.push(part());
        second.push(part());
        variants.add(RenditionId(2), Arc::clone(&second));
        // The card's part starts a segment, each time.
        let report = |uri: &str, last| vec![RenditionReport { uri: uri.to_owned(), last }];
        assert_eq!(variants.reports(RenditionId(0), &first), report("2/live.m3u8", (1, 0)));
        let of_first = variants.reports(RenditionId(2), &first);
        assert_eq!(of_first, report("../live.m3u8", (0, 0)));
        let mut text = "#EXTM3U\n".to_owned();
        caudal_media::hls::add_reports(&mut text, &of_first);
        let line = "#EXT-X-RENDITION-REPORT:URI=\"../live.m3u8\",LAST-MSN=0,LAST-PART=0\n";
        assert_eq!(text, format!("#EXTM3U\n{line}"));
        variants.offer(vec![rendition(2, Some(360), None)]);
        assert_eq!(variants.reports(RenditionId(2), &first), [], "the channel has the first no longer");
        second.end();
        first.end();
        variants.offer(vec![rendition(0, Some(720), None), rendition(2, Some(360), None)]);
        assert_eq!(variants.reports(RenditionId(0), &first), [], "nothing follows");
    }
}
