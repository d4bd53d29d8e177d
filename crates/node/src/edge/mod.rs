//! HTTP as the server's side of delivery: an edge that serves signed parts from memory, and those who fetch them.
//!
//! | module | owns |
//! |---|---|
//! | [`shelf`] | the window of signed parts that an edge keeps, of all renditions |
//! | [`variants`] | the renditions as players may choose from them |
//! | `lanes` | how the renditions beside the first come in: a swarm and a playout for each |
//! | [`server`] | what strangers and CDNs may read of it, and nothing else of the node |
//! | `object` | what never changes, as HTTP serves it: validators, ranges, caching (RFC 9110, RFC 9111, RFC 8246) |
//! | [`client`] | asking an edge, or any CDN in front of one; nothing that comes is trusted before it was verified |
//! | `counted` | the connections to an edge: every byte counted and limited |
//! | [`feed`] | watching by HTTP alone: what `caudal watch --no-p2p` has in place of a swarm |

pub mod client;
mod counted;
pub mod feed;
pub(crate) mod lanes;
mod object;
pub mod server;
pub mod shelf;
pub mod variants;
