//! From a request's bytes to something that its sender is known to have said.
//!
//! Everything costly and stateless happens here, before the registry is locked: size, JSON, the signature, the proofs
//! of a source. Whether the request is fresh and allowed is the registry's to say.

use std::fmt;

use caudal_proto::broadcast::{Certificate, LiveNote};

use serde::Deserialize;

use crate::descriptor::{Descriptor, SignedDescriptor};
use crate::message::{
    Broadcast, Code, Connect, Envelope, PEER_ADDRESSES_MAX, PEER_PORT_MIN, REQUEST_LEN_MAX, Request,
    RequestType, SWARMS_PER_REQUEST_MAX, StatReport, SwarmId, TRANSACTION_ID_LEN_MAX, VERSION,
    verify_request,
};

/// Why a request, or one swarm in it, was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) code: Code,
    pub(crate) message: String,
}

impl Problem {
    pub(crate) fn new(code: Code, message: impl fmt::Display) -> Self {
        Self { code, message: message.to_string() }
    }

    fn bad(message: impl fmt::Display) -> Self {
        Self::new(Code::BadRequest, message)
    }
}

/// What a source has proven about a swarm's channel.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    pub(crate) broadcast: Option<(Certificate, LiveNote)>,
    pub(crate) descriptor: Option<(SignedDescriptor, Descriptor)>,
}

/// A request that its peer signed, within every limit; only [`verify`] makes one.
#[derive(Debug)]
pub(crate) struct Verified {
    pub(crate) request: Request,
    /// One per swarm of the request, in its order.
    pub(crate) facts: Vec<Result<Facts, Problem>>,
}

/// The part of a request that is read first, whatever the version of the rest.
#[derive(Debug, Deserialize)]
struct Head {
    version: u32,
}

/// Checks a request's body against the signature in its header.
pub(crate) fn verify(body: &[u8], signature: Option<&str>) -> Result<Verified, Problem> {
    if body.len() > REQUEST_LEN_MAX {
        return Err(Problem::bad(format!("a request has at most {REQUEST_LEN_MAX} bytes")));
    }
    // The head alone is read first: a later version may have any other shape.
    let head: Envelope<Head> = serde_json::from_slice(body).map_err(|error| {
        Problem::bad(format!("expected {{\"PPSPTrackerProtocol\": {{\"version\": 1, …}}}}: {error}"))
    })?;
    if head.body.version != VERSION {
        let message = format!("PPSTP version {} is not spoken here; use {VERSION}", head.body.version);
        return Err(Problem::new(Code::UnsupportedVersion, message));
    }
    let json = &mut serde_json::Deserializer::from_slice(body);
    // Names the member that is wrong, not only the line.
    let request: Envelope<Request> = serde_path_to_error::deserialize(json).map_err(Problem::bad)?;
    let request = request.body;
    check_shape(&request)?;
    let signature = signature.ok_or_else(|| {
        Problem::new(
            Code::AuthenticationRequired,
            "the request is not signed: the header Caudal-Signature is missing",
        )
    })?;
    if !verify_request(&request.peer_id, body, signature) {
        let message = "the signature in Caudal-Signature is not the peer's over this body";
        return Err(Problem::new(Code::AuthenticationRequired, message));
    }
    let facts = facts(&request);
    Ok(Verified { request, facts })
}

fn check_shape(request: &Request) -> Result<(), Problem> {
    let id = &request.transaction_id;
    if id.is_empty() || id.len() > TRANSACTION_ID_LEN_MAX || !id.chars().all(|c| c.is_ascii_graphic()) {
        return Err(Problem::bad("transaction_id must be 1 to 64 printable ASCII characters"));
    }
    let objects = (&request.connect, &request.find, &request.stat_report);
    match (request.request_type, objects) {
        (RequestType::Connect, (Some(connect), None, None)) => check_connect(connect),
        (RequestType::Find, (None, Some(_), None)) => Ok(()),
        (RequestType::StatReport, (None, None, Some(report))) => check_report(report),
        _ => Err(Problem::bad(
            "there must be exactly the object that request_type names: connect, find or stat_report",
        )),
    }
}

fn check_connect(connect: &Connect) -> Result<(), Problem> {
    check_swarms(connect.swarm_action.iter().map(|action| action.swarm_id))?;
    if connect.peer_addr.len() > PEER_ADDRESSES_MAX {
        return Err(Problem::bad(format!("peer_addr has at most {PEER_ADDRESSES_MAX} entries")));
    }
    if connect.peer_addr.iter().any(|claimed| claimed.port < PEER_PORT_MIN) {
        return Err(Problem::bad(format!("a peer's UDP port must be {PEER_PORT_MIN} or above")));
    }
    Ok(())
}

fn check_report(report: &StatReport) -> Result<(), Problem> {
    check_swarms(report.stat.iter().map(|stat| stat.swarm_id))?;
    match report.stat.iter().find_map(|stat| stat.qos.wrong_member()) {
        Some(member) => Err(Problem::bad(format!("qos.{member} is out of its limits"))),
        None => Ok(()),
    }
}

fn check_swarms(ids: impl Iterator<Item = SwarmId>) -> Result<(), Problem> {
    let mut ids: Vec<_> = ids.collect();
    if ids.is_empty() || ids.len() > SWARMS_PER_REQUEST_MAX {
        return Err(Problem::bad(format!("a request names 1 to {SWARMS_PER_REQUEST_MAX} swarms")));
    }
    ids.sort_unstable();
    if ids.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(Problem::bad("a request names each swarm once"));
    }
    Ok(())
}

fn facts(request: &Request) -> Vec<Result<Facts, Problem>> {
    let open = |swarm: &SwarmId, broadcast: Option<&Broadcast>, descriptor: Option<&SignedDescriptor>| {
        let broadcast = broadcast
            .map(|broadcast| broadcast.open(&swarm.channel, &request.peer_id, request.timestamp_unix_ms))
            .transpose()
            .map_err(|error| {
                Problem::new(Code::AuthenticationRequired, format!("the broadcast was refused: {error}"))
            })?;
        let descriptor = descriptor
            .map(|signed| signed.open(&swarm.channel).map(|opened| (signed.clone(), opened)))
            .transpose()
            .map_err(Problem::bad)?;
        Ok(Facts { broadcast, descriptor })
    };
    if let Some(connect) = &request.connect {
        let actions = connect.swarm_action.iter();
        return actions.map(|a| open(&a.swarm_id, a.broadcast.as_ref(), a.descriptor.as_ref())).collect();
    }
    if let Some(report) = &request.stat_report {
        return report
            .stat
            .iter()
            .map(|s| open(&s.swarm_id, s.broadcast.as_ref(), s.descriptor.as_ref()))
            .collect();
    }
    vec![Ok(Facts::default())]
}
