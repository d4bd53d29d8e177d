//! The directory's messages: entries, pages, and the data of events.

use caudal_proto::id::ChannelId;
use serde::{Deserialize, Deserializer, Serialize};

use crate::descriptor::{RENDITIONS_MAX, SignedDescriptor};
use crate::message::{LiveBroadcast, Takedown};
use crate::text::as_text;

/// A channel in the directory, and in the events about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChannelEntry {
    /// The channel.
    #[serde(with = "as_text")]
    pub channel: ChannelId,
    /// How it is.
    pub state: ChannelState,
    /// Its name, for people who read the JSON; programs take it from the descriptor, whose signature they check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What it says about itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub descriptor: Option<SignedDescriptor>,
    /// Newest certificate and live note; not in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broadcast: Option<LiveBroadcast>,
    /// When its broadcast began by the source's own clock, as its certificate says, ms since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_unix_ms: Option<u64>,
    /// Viewers now.
    #[serde(default)]
    pub viewers: u32,
    /// Means over the viewers that reported; in lists at most a second old, and where continuity is as it was perhaps older.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quality: Option<Quality>,
    /// Why the operator took it down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub takedown: Option<Takedown>,
}

/// How a channel is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChannelState {
    /// A source is there and has not ended its broadcast.
    Live,
    /// Its source said that the broadcast ended.
    Ended,
    /// There was a source, and it fell silent.
    Silent,
    /// No source has been seen.
    Waiting,
    /// Taken down by the operator.
    TakenDown,
}

/// Means over the viewers of a channel that reported the value; never about one viewer alone is meant by it, so there
/// is none below [`QUALITY_REPORTS_MIN`] reports.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Quality {
    /// Viewers that reported anything.
    pub reports: u32,
    /// Mean continuity index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub continuity: Option<f64>,
    /// Mean offload ratio.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offload_ratio: Option<f64>,
    /// Mean share of useful bytes that came over HTTP from an edge.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub edge_ratio: Option<f64>,
    /// Mean startup delay, ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub startup_ms: Option<f64>,
    /// Mean of the viewers' medians of chunk delay, ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay_p50_ms: Option<f64>,
    /// Mean of the viewers' 95th percentiles of chunk delay, ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay_p95_ms: Option<f64>,
    /// Mean buffer, ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub buffer_ms: Option<f64>,
    /// Stalls, summed.
    pub stalls: u64,
    /// Viewers that reported which rendition plays, by rendition: those of the channel's descriptor in which there are any, in
    /// its order. Empty where fewer than [`QUALITY_REPORTS_MIN`] reported one.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "rendition_viewers")]
    pub renditions: Vec<RenditionViewers>,
}

/// No more than a channel may have, whatever a tracker says.
fn rendition_viewers<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<RenditionViewers>, D::Error> {
    let mut told = Vec::<RenditionViewers>::deserialize(from)?;
    told.truncate(RENDITIONS_MAX);
    Ok(told)
}

/// How many viewers have one rendition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenditionViewers {
    /// Its number.
    pub id: u8,
    /// Viewers.
    pub viewers: u32,
}

/// Fewest reports from which a [`Quality`] is given.
pub const QUALITY_REPORTS_MIN: u32 = 2;

/// A page of the directory; also the `snapshot` event of `/v1/channels/events`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ChannelPage {
    /// Listed, live channels, by viewers (most first), then by id.
    pub channels: Vec<ChannelEntry>,
    /// How many match in all.
    #[serde(default)]
    pub total: u64,
    /// The `offset` of the next page, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// Why a channel left the directory: data of its `gone` event and of a channel's `ended` event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gone {
    /// The channel.
    #[serde(with = "as_text")]
    pub channel: ChannelId,
    /// How it is now; [`ChannelState::Live`] when it is only no longer listed.
    pub state: ChannelState,
}

/// An audience that changed: data of the `viewers` event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Viewers {
    /// The channel.
    #[serde(with = "as_text")]
    pub channel: ChannelId,
    /// Viewers now.
    pub viewers: u32,
    /// Means over the viewers that reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quality: Option<Quality>,
}

/// An error outside PPSTP: the body of every refusal of the directory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// A [`crate::message::Code`]'s number.
    pub error_code: u16,
    /// What was wrong and what to do.
    pub error: String,
    /// Why the operator took the channel down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub takedown: Option<Takedown>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_tracker_says_of_renditions_is_bounded_and_may_be_missing() {
        let old: Quality = serde_json::from_str(r#"{"reports":2,"stalls":0}"#).unwrap();
        assert_eq!(old, Quality { reports: 2, ..Quality::default() });
        assert_eq!(serde_json::to_string(&old).unwrap(), r#"{"reports":2,"stalls":0}"#);
        let many = vec![r#"{"id":1,"viewers":2}"#; 1000].join(",");
        let told: Quality =
            serde_json::from_str(&format!(r#"{{"reports":2,"renditions":[{many}]}}"#)).unwrap();
        assert_eq!(told.renditions, [RenditionViewers { id: 1, viewers: 2 }; RENDITIONS_MAX]);
    }
}
