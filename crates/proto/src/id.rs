//! Channels, peers and renditions, and the keys behind them (Ed25519, RFC 8032).
//!
//! A channel's id *is* its public key, so that a link is all a viewer needs in order to check what it receives.
//! Every signature is made over a domain prefix and the message, so that none can be replayed as another kind.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use data_encoding::BASE32_NOPAD;
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};

/// Bytes of an Ed25519 signature.
pub const SIGNATURE_LEN: usize = 64;
/// Characters of a channel or peer id written as text (base32, lower case, no padding; RFC 4648 §6).
pub const ID_TEXT_LEN: usize = 52;

/// What a signature is for; its prefix is signed with the message and never sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Domain {
    /// A broadcast certificate, signed by the channel key.
    Certificate,
    /// A live note, signed by a broadcast key.
    LiveNote,
    /// A chunk, signed by a broadcast key.
    Chunk,
    /// A channel descriptor in the directory, signed by the channel key.
    Descriptor,
    /// A tracker request that proves who asks, signed by a peer or channel key.
    Request,
    /// A peer record, signed by the peer whose it is.
    Record,
    /// A hop report, signed by the peer that reports.
    Hop,
}

impl Domain {
    /// The prefix of the signed bytes.
    pub const fn prefix(self) -> &'static [u8] {
        match self {
            Self::Certificate => b"caudal certificate v1\0",
            Self::LiveNote => b"caudal live note v1\0",
            Self::Chunk => b"caudal chunk v1\0",
            Self::Descriptor => b"caudal descriptor v1\0",
            Self::Request => b"caudal request v1\0",
            Self::Record => b"caudal peer record v1\0",
            Self::Hop => b"caudal hop report v1\0",
        }
    }
}

/// Why a text is not an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an id is {ID_TEXT_LEN} characters of a-z and 2-7")]
pub struct IdError;

macro_rules! public_key_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 32]);

        impl $name {
            /// Whether `signature` over `message` in `domain` was made by this id's key (strict: RFC 8032 §5.1.7
            /// without small-order keys).
            pub fn verify(&self, domain: Domain, message: &[u8], signature: &[u8; SIGNATURE_LEN]) -> bool {
                verify(&self.0, domain, message, signature)
            }

            /// The first ten characters, for people.
            pub fn short(&self) -> String {
                let mut text = encode(&self.0);
                text.truncate(10);
                text
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.short())
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                decode(text).map(Self)
            }
        }
    };
}

public_key_id!(
    /// What people watch: the channel's Ed25519 public key.
    ChannelId
);
public_key_id!(
    /// A node on the network: the Ed25519 public key by which the transport dials it.
    PeerId
);
public_key_id!(
    /// The key that signs one broadcast's chunks, as a broadcast certificate names it.
    BroadcastId
);

impl PeerId {
    /// Eight bytes that stand for this peer in paths of ancestors, where a collision costs a refused parent.
    pub fn tag(&self) -> u64 {
        let mut tag = [0; 8];
        tag.copy_from_slice(&self.0[..8]);
        u64::from_be_bytes(tag)
    }
}

/// Renditions of a channel are numbered below this.
pub const RENDITION_ID_END: u8 = 64;

/// A rendition of a channel; each has a swarm of its own. 0 is the first, which every channel has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RenditionId(pub u8);

/// One rendition's swarm of a channel, written `CHANNEL` for rendition 0 and `CHANNEL/N` for the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SwarmId {
    /// The channel.
    pub channel: ChannelId,
    /// The rendition, below [`RENDITION_ID_END`].
    pub rendition: RenditionId,
}

impl From<ChannelId> for SwarmId {
    fn from(channel: ChannelId) -> Self {
        Self { channel, rendition: RenditionId(0) }
    }
}

impl fmt::Display for SwarmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rendition.0 {
            0 => write!(f, "{}", self.channel),
            n => write!(f, "{}/{n}", self.channel),
        }
    }
}

impl FromStr for SwarmId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str =
            "a swarm id is a channel id (52 characters of a-z and 2-7), perhaps followed by /1 to /63";
        let (channel, rendition) = text.split_once('/').unwrap_or((text, "0"));
        let rendition: u8 = rendition.parse().map_err(|_| WRONG)?;
        if rendition >= RENDITION_ID_END {
            return Err(WRONG);
        }
        Ok(Self { channel: channel.parse().map_err(|_| WRONG)?, rendition: RenditionId(rendition) })
    }
}

/// A secret key: the channel's, a broadcast's or a node's. Wiped from memory when dropped.
#[derive(Clone)]
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// From 32 bytes of a secure random source.
    pub fn from_bytes(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// The 32 secret bytes.
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The public half, 32 bytes.
    pub fn public(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    /// The channel that this key owns.
    pub fn channel(&self) -> ChannelId {
        ChannelId(self.public())
    }

    /// Signs `message` in `domain`.
    pub fn sign(&self, domain: Domain, message: &[u8]) -> [u8; SIGNATURE_LEN] {
        self.0.sign(&prefixed(domain, message)).to_bytes()
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(…)")
    }
}

/// Whether `signature` over `message` in `domain` was made by the key `public`.
pub(crate) fn verify(
    public: &[u8; 32],
    domain: Domain,
    message: &[u8],
    signature: &[u8; SIGNATURE_LEN],
) -> bool {
    let Ok(key) = VerifyingKey::from_bytes(public) else { return false };
    key.verify_strict(&prefixed(domain, message), &ed25519_dalek::Signature::from_bytes(signature)).is_ok()
}

fn prefixed(domain: Domain, message: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(domain.prefix().len() + message.len());
    bytes.extend_from_slice(domain.prefix());
    bytes.extend_from_slice(message);
    bytes
}

fn encode(key: &[u8; 32]) -> String {
    let mut text = BASE32_NOPAD.encode(key);
    text.make_ascii_lowercase();
    text
}

fn decode(text: &str) -> Result<[u8; 32], IdError> {
    if text.len() != ID_TEXT_LEN || !text.is_ascii() {
        return Err(IdError);
    }
    let bytes = BASE32_NOPAD.decode(text.to_ascii_uppercase().as_bytes()).map_err(|_| IdError)?;
    bytes.try_into().map_err(|_| IdError)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString as _;

    #[test]
    fn ids_survive_text_and_refuse_what_is_not_one() {
        let key = SecretKey::from_bytes(&[7; 32]);
        let text = key.channel().to_string();
        assert_eq!(text.len(), ID_TEXT_LEN);
        assert_eq!(text.parse(), Ok(key.channel()));
        assert_eq!(text.to_uppercase().parse(), Ok(key.channel()));
        for bad in ["", "abc", &text[1..], &text.replace(&text[0..1], "1"), &"é".repeat(26)] {
            assert_eq!(bad.parse::<ChannelId>(), Err(IdError), "{bad}");
        }
    }

    #[test]
    fn a_signature_holds_in_its_own_domain_only() {
        let key = SecretKey::from_bytes(&[7; 32]);
        let signature = key.sign(Domain::Chunk, b"message");
        assert!(key.channel().verify(Domain::Chunk, b"message", &signature));
        assert!(!key.channel().verify(Domain::LiveNote, b"message", &signature));
        assert!(!key.channel().verify(Domain::Chunk, b"massage", &signature));
        assert!(!ChannelId([0; 32]).verify(Domain::Chunk, b"message", &signature));
    }
}
