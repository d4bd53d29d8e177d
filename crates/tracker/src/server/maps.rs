//! Where the tracker's map of the network comes from: another server, whose maps it follows, or a file that it serves itself.
//!
//! A map is advice. When there is none, or nobody has stood by it for an hour, peers are chosen as without one.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use caudal_alto::client::{AltoClient, ClientOptions, FollowOptions, Follower, Snapshot};
use caudal_alto::server::{AltoServer, Limits, Part};
use caudal_proto::addr::{Class, classify};

use crate::server::ServerError;
use crate::url::{TrackerUrl, UrlError};

/// Below this path the tracker serves the map of its own file.
pub(crate) const ALTO_PATH: &str = "/alto";
/// Where the directory is, from the tracker's own address.
const OWN_DIRECTORY: &str = "alto/directory";
/// Update streams of the tracker's own map: none, because each holds a connection, and those are for announces. Whoever finds
/// no room for one asks now and then.
const SUBSCRIBERS_MAX: usize = 0;

/// What an operator named, checked.
#[derive(Debug)]
pub(crate) enum Origin {
    /// Another server, and what peers are told of it.
    Server(Box<AltoClient>, Box<ToldAlto>),
    /// A file, and perhaps another address than the tracker's own by which peers find what is in it.
    File(Box<AltoServer>, Option<Box<ToldAlto>>),
}

/// A map as it changes.
#[derive(Debug)]
pub(crate) enum Maps {
    Followed(Follower),
    Own(Part),
}

/// Where peers find the map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ToldAlto {
    text: String,
    /// It is on this machine: nobody else is told.
    loopback: bool,
}

/// How the map is, for the metrics.
#[derive(Debug, Clone, Default)]
pub(crate) struct MapState {
    pub(crate) age_s: Option<u64>,
    /// The network map's version tag.
    pub(crate) tag: Option<String>,
    pub(crate) pids: usize,
    /// It is fresh, so that peers are chosen by it.
    pub(crate) used: bool,
}

impl ToldAlto {
    /// An address of a directory, for all who can reach it.
    fn new(url: &str) -> Result<Self, UrlError> {
        // The same shape: http or https, a host, no password.
        let parsed: TrackerUrl = url.parse()?;
        // As it was given: a slash at the end matters to what the directory leads to.
        Ok(Self { text: url.to_owned(), loopback: parsed.is_loopback() })
    }

    /// What a peer at `from` is told: another machine's loopback address would lead it to itself.
    pub(crate) fn to(&self, from: IpAddr) -> Option<String> {
        (!self.loopback || classify(from) == Class::Loopback).then(|| self.text.clone())
    }
}

impl Origin {
    /// `alto` is the address of a server or the path of a file; `public` is what peers are told instead.
    pub(crate) fn open(alto: &str, public: Option<&str>) -> Result<Self, ServerError> {
        let public = public.map(ToldAlto::new).transpose().map_err(ServerError::PublicAlto)?;
        if alto.starts_with("http://") || alto.starts_with("https://") {
            let client = AltoClient::new(alto, &ClientOptions::default())?;
            let told = match public {
                Some(told) => told,
                None => ToldAlto::new(alto).map_err(ServerError::PublicAlto)?,
            };
            return Ok(Self::Server(Box::new(client), Box::new(told)));
        }
        let limits = Limits { subscribers: SUBSCRIBERS_MAX, ..Limits::default() };
        let server = AltoServer::open(PathBuf::from(alto), limits)?;
        Ok(Self::File(Box::new(server), public.map(Box::new)))
    }

    /// Begins to follow or to serve. Needs a tokio runtime.
    pub(crate) fn start(self) -> (Maps, ToldAlto) {
        match self {
            Self::Server(client, told) => {
                (Maps::Followed(Follower::start(*client, FollowOptions::default())), *told)
            }
            Self::File(server, told) => {
                let own = || ToldAlto { text: OWN_DIRECTORY.to_owned(), loopback: false };
                (Maps::Own(server.into_part()), told.map_or_else(own, |told| *told))
            }
        }
    }
}

impl Maps {
    /// The newest map, unless it is too old to be used.
    pub(crate) fn fresh(&self) -> Option<Arc<Snapshot>> {
        match self {
            Self::Followed(follower) => follower.fresh(),
            Self::Own(part) => part.snapshot().map(Arc::new),
        }
    }

    pub(crate) fn state(&self) -> MapState {
        let (snapshot, age_s) = match self {
            Self::Followed(follower) => (follower.snapshot(), follower.age().map(|age| age.as_secs())),
            Self::Own(part) => (part.snapshot().map(Arc::new), Some(0)),
        };
        let Some(snapshot) = snapshot else { return MapState::default() };
        let network = snapshot.network();
        let used = self.fresh().is_some();
        MapState { age_s, tag: Some(network.vtag().tag.clone()), pids: network.pids().len(), used }
    }

    /// What the tracker serves of it.
    pub(crate) fn router(&self) -> Option<Router> {
        match self {
            Self::Followed(_) => None,
            Self::Own(part) => Some(part.router()),
        }
    }

    /// Ends what is open: the tracker stops.
    pub(crate) fn stop(&self) {
        if let Self::Own(part) = self {
            part.stop();
        }
    }
}
