//! The channel descriptor: what a channel says about itself, signed with the channel key.
//!
//! The signature is over the exact JSON bytes, which travel as base64url, so there is no canonical form to agree on.
//! Members that this version does not know are ignored, so that later versions can say more; the signature still
//! covers them because the bytes are kept as they came. Whether a descriptor is newer than another is told by
//! `issued_unix_ms`; that is for whoever stores it.

use caudal_proto::id::{ChannelId, Domain, RENDITION_ID_END, RenditionId, SIGNATURE_LEN, SecretKey};
use serde::{Deserialize, Serialize};

use crate::link::{EDGES_MAX, TRACKERS_MAX};
use crate::text::{self, as_text, base64url};
use crate::url::TrackerUrl;

/// Longest name, characters.
pub const NAME_CHARS_MAX: usize = 64;
/// Longest description, characters.
pub const DESCRIPTION_CHARS_MAX: usize = 500;
/// Longest language tag, bytes.
pub const LANGUAGE_LEN_MAX: usize = 16;
/// Most renditions.
pub const RENDITIONS_MAX: usize = 8;
/// Longest codecs string (RFC 6381), bytes.
pub const CODECS_LEN_MAX: usize = 64;
/// Longest descriptor, JSON bytes.
pub const DESCRIPTOR_LEN_MAX: usize = 6144;

/// Why a descriptor was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DescriptorError {
    /// A member has a value that it cannot have.
    #[error("channel descriptor: {member} {why}")]
    Member {
        /// The member's name.
        member: &'static str,
        /// What is wrong and what was expected.
        why: &'static str,
    },
    /// Not the JSON of a descriptor.
    #[error("channel descriptor: not the expected JSON: {0}")]
    Json(String),
    /// Too long.
    #[error("channel descriptor: longer than {DESCRIPTOR_LEN_MAX} bytes; shorten the description")]
    TooLong,
    /// It is about another channel.
    #[error("channel descriptor: it is about another channel")]
    Foreign,
    /// Not signed by the channel key.
    #[error("channel descriptor: the signature does not match the channel's key")]
    Signature,
}

/// One rendition of a channel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rendition {
    /// Its number, below [`RENDITION_ID_END`]; each has a swarm of its own.
    pub id: u8,
    /// Codecs as in RFC 6381, for example `avc1.64001f,mp4a.40.2`.
    pub codecs: String,
    /// Width, pixels; none for audio.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<u32>,
    /// Height, pixels; none for audio.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height: Option<u32>,
    /// Frames per second; none for audio.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fps: Option<f64>,
    /// Peak rate, bit/s.
    pub bandwidth_bps: u64,
}

/// Who carries a channel to its viewers, as its broadcaster wants it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Delivery {
    /// The source feeds viewers as far as its upload goes, and they each other.
    #[default]
    Hybrid,
    /// The source sends a copy or two, viewers do the rest.
    SwarmOnly,
    /// The source feeds everybody; nobody is told of another viewer.
    ServerOnly,
}

impl Delivery {
    /// What is not said.
    fn is_usual(&self) -> bool {
        *self == Self::Hybrid
    }
}

/// What a channel says about itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Descriptor {
    /// The channel.
    #[serde(with = "as_text")]
    pub channel: ChannelId,
    /// Up to [`NAME_CHARS_MAX`] characters, one line, not empty.
    pub name: String,
    /// Up to [`DESCRIPTION_CHARS_MAX`] characters.
    #[serde(default)]
    pub description: String,
    /// A language tag (BCP 47) such as `es` or `pt-BR`; empty when not said.
    #[serde(default)]
    pub language: String,
    /// Up to [`RENDITIONS_MAX`].
    #[serde(default)]
    pub renditions: Vec<Rendition>,
    /// BLAKE3 hash of a still picture, 64 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub still: Option<String>,
    /// Up to [`TRACKERS_MAX`] trackers; foreign to whoever reads them.
    #[serde(default)]
    pub trackers: Vec<Tracker>,
    /// Up to [`EDGES_MAX`] edges that have the channel over HTTP; foreign likewise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub edges: Vec<Tracker>,
    /// Who carries it.
    #[serde(default, skip_serializing_if = "Delivery::is_usual")]
    pub delivery: Delivery,
    /// Whether trackers may list the channel.
    #[serde(default)]
    pub listed: bool,
    /// When it was written, ms since the Unix epoch; the newest replaces the others.
    pub issued_unix_ms: u64,
}

/// A tracker's or an edge's URL in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tracker(#[serde(with = "as_text")] pub TrackerUrl);

/// A descriptor as it travels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedDescriptor {
    /// The descriptor's JSON bytes, base64url.
    #[serde(with = "base64url")]
    pub descriptor: Vec<u8>,
    /// The channel key's signature over those bytes ([`Domain::Descriptor`]), base64url.
    #[serde(with = "base64url")]
    pub signature: Vec<u8>,
}

impl Descriptor {
    /// A descriptor with nothing but a name, unlisted.
    pub fn new(channel: ChannelId, name: &str, issued_unix_ms: u64) -> Self {
        Self {
            channel,
            name: name.to_owned(),
            description: String::new(),
            language: String::new(),
            renditions: Vec::new(),
            still: None,
            trackers: Vec::new(),
            edges: Vec::new(),
            delivery: Delivery::default(),
            listed: false,
            issued_unix_ms,
        }
    }

    /// Checks every member against its limits.
    ///
    /// # Errors
    /// [`DescriptorError::Member`] names the first that is wrong.
    pub fn validate(&self) -> Result<(), DescriptorError> {
        let refuse = |member, why| Err(DescriptorError::Member { member, why });
        if self.name.trim().is_empty() || self.name.chars().count() > NAME_CHARS_MAX {
            return refuse("name", "must have 1 to 64 characters");
        }
        if !self.name.chars().all(text::is_plain) {
            return refuse("name", "must be one line without control characters or direction marks");
        }
        if self.description.chars().count() > DESCRIPTION_CHARS_MAX {
            return refuse("description", "must have at most 500 characters");
        }
        if !self.description.chars().all(|c| c == '\n' || text::is_plain(c)) {
            return refuse("description", "must not have control characters or direction marks");
        }
        if !is_language(&self.language) {
            return refuse("language", "must be a tag such as es or pt-BR, at most 16 characters");
        }
        if self.renditions.len() > RENDITIONS_MAX {
            return refuse("renditions", "must be at most 8");
        }
        for (index, rendition) in self.renditions.iter().enumerate() {
            rendition.validate()?;
            if self.renditions[..index].iter().any(|other| other.id == rendition.id) {
                return refuse("renditions", "must not share an id");
            }
        }
        let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        if self.still.as_ref().is_some_and(|hash| hash.len() != 64 || !hash.chars().all(hex)) {
            return refuse("still", "must be a BLAKE3 hash, 64 lower-case hexadecimal digits");
        }
        if self.trackers.len() > TRACKERS_MAX {
            return refuse("trackers", "must be at most 4");
        }
        if self.edges.len() > EDGES_MAX {
            return refuse("edges", "must be at most 4");
        }
        Ok(())
    }

    /// Checks and signs the descriptor.
    ///
    /// # Errors
    /// When a member is out of its limits, or the key is not the channel's.
    pub fn sign(&self, channel_key: &SecretKey) -> Result<SignedDescriptor, DescriptorError> {
        self.validate()?;
        if channel_key.channel() != self.channel {
            return Err(DescriptorError::Foreign);
        }
        let descriptor =
            serde_json::to_vec(self).map_err(|error| DescriptorError::Json(error.to_string()))?;
        if descriptor.len() > DESCRIPTOR_LEN_MAX {
            return Err(DescriptorError::TooLong);
        }
        let signature = channel_key.sign(Domain::Descriptor, &descriptor).to_vec();
        Ok(SignedDescriptor { descriptor, signature })
    }
}

impl Rendition {
    fn validate(&self) -> Result<(), DescriptorError> {
        let refuse = |member, why| Err(DescriptorError::Member { member, why });
        if self.id >= RENDITION_ID_END {
            return refuse("renditions.id", "must be below 64");
        }
        let codec = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | ',' | '-' | '_');
        if self.codecs.is_empty() || self.codecs.len() > CODECS_LEN_MAX || !self.codecs.chars().all(codec) {
            return refuse("renditions.codecs", "must be as in RFC 6381, at most 64 characters");
        }
        if [self.width, self.height].into_iter().flatten().any(|side| side == 0 || side > 16_384) {
            return refuse("renditions.width and height", "must be 1 to 16384 pixels");
        }
        if self.fps.is_some_and(|fps| !(fps > 0.0 && fps <= 1000.0)) {
            return refuse("renditions.fps", "must be above 0 and at most 1000");
        }
        if self.bandwidth_bps == 0 || self.bandwidth_bps > 1_000_000_000 {
            return refuse("renditions.bandwidth_bps", "must be 1 to 1000000000");
        }
        Ok(())
    }

    /// The id as the rest of Caudal names it.
    pub fn rendition(&self) -> RenditionId {
        RenditionId(self.id)
    }
}

fn is_language(tag: &str) -> bool {
    tag.is_empty()
        || (tag.len() <= LANGUAGE_LEN_MAX
            && tag.split('-').enumerate().all(|(index, part)| {
                let length = if index == 0 { 2..=8 } else { 1..=8 };
                let letter =
                    |c: char| if index == 0 { c.is_ascii_alphabetic() } else { c.is_ascii_alphanumeric() };
                length.contains(&part.len()) && part.chars().all(letter)
            }))
}

impl SignedDescriptor {
    /// Checks the signature and every member, and returns what was signed.
    ///
    /// # Errors
    /// When it is not `channel`'s, not signed by its key, or out of its limits.
    pub fn open(&self, channel: &ChannelId) -> Result<Descriptor, DescriptorError> {
        if self.descriptor.len() > DESCRIPTOR_LEN_MAX {
            return Err(DescriptorError::TooLong);
        }
        let signature: &[u8; SIGNATURE_LEN] =
            self.signature.as_slice().try_into().map_err(|_| DescriptorError::Signature)?;
        if !channel.verify(Domain::Descriptor, &self.descriptor, signature) {
            return Err(DescriptorError::Signature);
        }
        let descriptor: Descriptor = serde_json::from_slice(&self.descriptor)
            .map_err(|error| DescriptorError::Json(error.to_string()))?;
        if descriptor.channel != *channel {
            return Err(DescriptorError::Foreign);
        }
        descriptor.validate()?;
        Ok(descriptor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SecretKey {
        SecretKey::from_bytes(&[5; 32])
    }

    fn full() -> Descriptor {
        let rendition = Rendition {
            id: 0,
            codecs: "avc1.64001f,mp4a.40.2".into(),
            width: Some(1280),
            height: Some(720),
            fps: Some(29.97),
            bandwidth_bps: 3_000_000,
        };
        Descriptor {
            description: "x".repeat(500),
            language: "pt-BR".into(),
            renditions: vec![rendition],
            still: Some("ab".repeat(32)),
            trackers: vec![Tracker("https://t.example".parse().unwrap())],
            edges: vec![Tracker("https://cdn.example".parse().unwrap())],
            listed: true,
            ..Descriptor::new(key().channel(), "Canal 1", 7)
        }
    }

    #[test]
    fn a_descriptor_survives_signing_and_json() {
        let signed = full().sign(&key()).unwrap();
        let text = serde_json::to_string(&signed).unwrap();
        let back: SignedDescriptor = serde_json::from_str(&text).unwrap();
        assert_eq!(back.open(&key().channel()), Ok(full()));
    }

    #[test]
    fn another_key_another_channel_or_a_changed_byte_is_refused() {
        let mut signed = full().sign(&key()).unwrap();
        let other = SecretKey::from_bytes(&[6; 32]);
        assert_eq!(full().sign(&other), Err(DescriptorError::Foreign));
        assert_eq!(signed.open(&other.channel()), Err(DescriptorError::Signature));
        signed.descriptor[20] ^= 1;
        assert_eq!(signed.open(&key().channel()), Err(DescriptorError::Signature));
        // Signed by the right key, yet about another channel.
        let bytes = serde_json::to_vec(&Descriptor { channel: other.channel(), ..full() }).unwrap();
        let signature = key().sign(Domain::Descriptor, &bytes).to_vec();
        let foreign = SignedDescriptor { descriptor: bytes, signature };
        assert_eq!(foreign.open(&key().channel()), Err(DescriptorError::Foreign));
    }

    #[test]
    fn members_of_later_versions_are_ignored_and_stay_signed() {
        let mut json = serde_json::to_value(full()).unwrap();
        json["later"] = serde_json::json!({"a": [1, 2]});
        let descriptor = serde_json::to_vec(&json).unwrap();
        let signature = key().sign(Domain::Descriptor, &descriptor).to_vec();
        assert_eq!(SignedDescriptor { descriptor, signature }.open(&key().channel()), Ok(full()));
    }

    #[test]
    fn every_member_has_its_limit() {
        type Spoil = fn(&mut Descriptor);
        let bad: [(&str, Spoil); 13] = [
            ("name", |d| d.name = " ".into()),
            ("name", |d| d.name = "n".repeat(65)),
            ("name", |d| d.name = "a\u{202e}b".into()),
            ("name", |d| d.name = "a\nb".into()),
            ("description", |d| d.description = "é".repeat(501)),
            ("language", |d| d.language = "x_y".into()),
            ("language", |d| d.language = "es-419-abcdefgh-x".into()),
            ("renditions", |d| d.renditions = vec![d.renditions[0].clone(); 2]),
            ("renditions.fps", |d| d.renditions[0].fps = Some(0.0)),
            ("renditions.codecs", |d| d.renditions[0].codecs = "<script>".into()),
            ("still", |d| d.still = Some("zz".repeat(32))),
            ("trackers", |d| d.trackers = vec![d.trackers[0].clone(); 5]),
            ("edges", |d| d.edges = vec![d.edges[0].clone(); 5]),
        ];
        for (member, spoil) in bad {
            let mut descriptor = full();
            spoil(&mut descriptor);
            let error = descriptor.validate().unwrap_err();
            assert!(
                matches!(error, DescriptorError::Member { member: m, .. } if m == member),
                "{member}: {error}"
            );
        }
    }
}
