//! What encoders and files send, turned into [`Ingest`](crate::sample::Ingest) events on one clean timeline.
//!
//! | module | owns |
//! |---|---|
//! | [`rtmp`] | the server side of one RTMP connection |
//! | [`flv`] | FLV tags (what RTMP carries) and FLV files |
//! | [`mp4`] | MP4 files, progressive and fragmented |
//! | [`mod@file`] | any of these files, in a loop without a seam |
//! | [`timeline`] | timestamps that wrap, jump, jitter and run backwards |
//! | [`health`] | what was measured, and what to tell the broadcaster |
//!
//! Nothing here opens a socket, starts a thread or reads a clock. To add a codec: a variant of
//! [`Codec`](crate::sample::Codec), its configuration in `codec`, and an arm in [`flv`] and [`mp4`].

mod codec;
pub mod file;
pub mod flv;
pub mod health;
pub mod mp4;
pub mod rtmp;
pub mod timeline;

pub use codec::{CONFIG_LEN_MAX, ConfigError, rfc6381};
