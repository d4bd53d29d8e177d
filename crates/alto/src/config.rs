//! `alto.toml`: which prefixes are in which PID, and what it costs to go from one PID to another.
//!
//! A file is taken whole or refused with the line of the first thing that is wrong in it, so that an operator finds it and
//! a server that runs keeps the maps that it has. The keys are described in `docs/alto.md`.

mod costs;
mod read;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::IpNet;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::map::{CostMap, MAP_LEN_MAX, MapError, NetworkMap, PIDS_MAX, PREFIXES_MAX};
use crate::types::PidName;
use read::{At, Lines};

/// Longest file, bytes.
pub const FILE_LEN_MAX: u64 = 64 * 1024 * 1024;
/// Most network maps.
pub const MAPS_MAX: usize = 8;
/// Most metrics of a network map, routingcost included.
pub const METRICS_MAX: usize = 8;
/// Longest name of a network map: names of resources are made of it.
pub const MAP_NAME_LEN_MAX: usize = 24;
/// The default map's name unless the file gives another.
pub const MAP_NAME: &str = "network";

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct ConfigError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong there, and what to do.
    pub what: String,
}

/// Why a file gives no maps.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// It cannot be read.
    #[error("cannot read {path}: {error}")]
    Read {
        /// The file.
        path: String,
        /// Why not.
        error: std::io::Error,
    },
    /// It is wrong.
    #[error("{path}:{}: {}", error.line, error.what)]
    Config {
        /// The file.
        path: String,
        /// What is wrong, and where.
        error: ConfigError,
    },
}

/// A network map and its costs; the first are routing costs. All numerical.
#[derive(Debug, Clone)]
pub struct MapConfig {
    /// The network map.
    pub network: Arc<NetworkMap>,
    /// One cost map for each metric.
    pub costs: Vec<Arc<CostMap>>,
}

/// The certificate and key of a server that speaks HTTPS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and those that lead to it, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
}

/// How to serve the maps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// Whether clients may give constraints with filtered cost maps and endpoint costs.
    pub cost_constraints: bool,
    /// Addresses of proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<std::net::IpAddr>,
    /// Serve HTTPS.
    pub tls: Option<TlsFiles>,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self { cost_constraints: true, trusted_proxies: Vec::new(), tls: None }
    }
}

/// What a file says.
#[derive(Debug, Clone)]
pub struct Config {
    /// The maps; the first is the default one.
    pub maps: Vec<MapConfig>,
    /// How to serve them.
    pub server: ServerConfig,
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// [`LoadError`], with the line.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        let shown = || path.display().to_string();
        let text = read_file(path).map_err(|error| LoadError::Read { path: shown(), error })?;
        Self::parse(&text, path.parent().unwrap_or(Path::new("")))
            .map_err(|error| LoadError::Config { path: shown(), error })
    }

    /// Reads the text of a file that lies in `folder`.
    ///
    /// # Errors
    /// [`ConfigError`], with the line.
    pub fn parse(text: &str, folder: &Path) -> Result<Self, ConfigError> {
        let lines = Lines::new(text);
        let root = DeTable::parse(text).map_err(|error| ConfigError {
            line: lines.at(error.span().map_or(0, |span| span.start)),
            what: error.message().to_owned(),
        })?;
        let root = At { lines: &lines, value: root.get_ref(), start: 0, path: String::new() };
        root.only(&["server", "map", "pids", "costs", "metrics", "maps"])?;
        let name = match root.string("map")? {
            Some((name, at)) => map_name(&lines, name, at)?,
            None => MAP_NAME,
        };
        let mut maps = vec![map(&root, name)?];
        for (key, table) in root.tables("maps")? {
            let name = map_name(&lines, key.get_ref(), key.span().start)?;
            if maps.iter().any(|map| map.network.vtag().resource_id == name) {
                return Err(lines.error(key.span().start, format!("there is a map {name} already")));
            }
            if maps.len() == MAPS_MAX {
                return Err(lines.error(key.span().start, format!("more than {MAPS_MAX} maps")));
            }
            table.only(&["pids", "costs", "metrics"])?;
            maps.push(map(&table, name)?);
        }
        Ok(Self { maps, server: server(&root, folder)? })
    }
}

fn read_file(path: &Path) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path)?.take(FILE_LEN_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_LEN_MAX {
        return Err(std::io::Error::other(format!("it is longer than {} MiB", FILE_LEN_MAX >> 20)));
    }
    Ok(text)
}

/// A map's name, which is its resource ID, part of others and of paths.
fn map_name<'a>(lines: &Lines<'_>, name: &'a str, at: usize) -> Result<&'a str, ConfigError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if (1..=MAP_NAME_LEN_MAX).contains(&name.len()) && name.bytes().all(plain) {
        return Ok(name);
    }
    let name = crate::types::shortened(name);
    Err(lines
        .error(at, format!("{name:?} cannot name a map: 1 to {MAP_NAME_LEN_MAX} letters, digits, - and _")))
}

fn map(table: &At<'_>, name: &str) -> Result<MapConfig, ConfigError> {
    let pids = table.required_table("pids", "list the prefixes of each PID there")?;
    let network = Arc::new(network(&pids, name)?);
    let costs = costs::read(table, &network)?;
    Ok(MapConfig { network, costs })
}

/// The PIDs; every prefix is checked where it stands, so that the line is the right one.
fn network(pids: &At<'_>, name: &str) -> Result<NetworkMap, ConfigError> {
    let lines = pids.lines;
    let mut owners: BTreeMap<IpNet, (&str, usize)> = BTreeMap::new();
    let mut groups: BTreeMap<PidName, Vec<IpNet>> = BTreeMap::new();
    for (key, value) in pids.entries_in_order() {
        let (pid, at) = (key.get_ref().as_ref(), key.span().start);
        let wrong = |what: String| Err(lines.error(at, what));
        let Ok(pid_name) = PidName::new(pid) else {
            return wrong(format!("{pid:?} cannot name a PID: 1 to 64 letters, digits and - : @ _"));
        };
        if pid.contains('.') {
            return wrong(format!("{pid:?} cannot name a PID: RFC 7285 keeps dots for later use"));
        }
        if groups.len() == PIDS_MAX {
            return wrong(format!("more than {PIDS_MAX} PIDs"));
        }
        let mut prefixes = Vec::new();
        for element in read::array(lines, value, &format!("{}.{pid}", pids.path))? {
            let at = element.span().start;
            let prefix = prefix(lines, element)?;
            if let Some((other, line)) = owners.insert(prefix, (pid, lines.at(at))) {
                let place = if other == pid {
                    format!("on line {line} too")
                } else {
                    format!("in {other} too, on line {line}")
                };
                return Err(
                    lines.error(at, format!("{prefix} of {pid} is {place}: a prefix belongs to one PID"))
                );
            }
            if owners.len() > PREFIXES_MAX {
                return Err(lines.error(at, format!("more than {PREFIXES_MAX} prefixes")));
            }
            prefixes.push(prefix);
        }
        groups.insert(pid_name, prefixes);
    }
    if owners.is_empty() {
        return Err(lines.error(pids.start, "there is no prefix in any PID".to_owned()));
    }
    // Each name comes once in each row, with quotes, colon, comma and a cost of two digits at least.
    let row: usize = groups.keys().map(|name| name.as_str().len() + 6).sum();
    if row.saturating_mul(groups.len()) > MAP_LEN_MAX {
        let what =
            format!("a cost map of so many PIDs with so long names is longer than {} MiB", MAP_LEN_MAX >> 20);
        return Err(lines.error(pids.start, format!("{what}: take fewer, or shorter names")));
    }
    let map = NetworkMap::new(name, groups).and_then(|map| map.check_complete().map(|()| map));
    map.map_err(|error| match error {
        MapError::Incomplete(all) => lines.error(
            pids.start,
            format!("not every address has a PID: add a PID for the rest of the world, such as default = [\"{all}\"]"),
        ),
        other => lines.error(pids.start, other.to_string()),
    })
}

fn prefix(lines: &Lines<'_>, element: &Spanned<DeValue<'_>>) -> Result<IpNet, ConfigError> {
    let at = element.span().start;
    let Some(text) = element.get_ref().as_str() else {
        return Err(lines.error(at, "a prefix in quotes is expected, like \"203.0.113.0/24\"".to_owned()));
    };
    let Ok(prefix) = text.parse::<IpNet>() else {
        let text = crate::types::shortened(text);
        return Err(lines.error(at, format!("{text:?} is no prefix: write 203.0.113.0/24 or 2001:db8::/32")));
    };
    if prefix.trunc() != prefix {
        let meant = prefix.trunc();
        return Err(lines.error(at, format!("{prefix} has bits set after its length: was {meant} meant?")));
    }
    Ok(prefix)
}

fn server(root: &At<'_>, folder: &Path) -> Result<ServerConfig, ConfigError> {
    let mut server = ServerConfig::default();
    let Some(table) = root.table("server")? else { return Ok(server) };
    let lines = table.lines;
    table.only(&["cost-constraints", "trusted-proxies", "tls-certificate", "tls-key"])?;
    if let Some((value, at)) = table.value("cost-constraints") {
        let value = value.as_bool();
        server.cost_constraints =
            value.ok_or_else(|| lines.error(at, "server.cost-constraints is true or false".to_owned()))?;
    }
    if let Some(value) = table.spanned("trusted-proxies") {
        for element in read::array(lines, value, "server.trusted-proxies")? {
            let ip = element.get_ref().as_str().and_then(|text| text.parse().ok());
            let wrong =
                || lines.error(element.span().start, "an IP address in quotes is expected".to_owned());
            server.trusted_proxies.push(ip.ok_or_else(wrong)?);
        }
    }
    server.tls = match (table.string("tls-certificate")?, table.string("tls-key")?) {
        (Some((certificate, _)), Some((key, _))) => {
            Some(TlsFiles { certificate: folder.join(certificate), key: folder.join(key) })
        }
        (None, None) => None,
        (Some((_, at)), None) => return Err(lines.error(at, "tls-certificate needs tls-key".to_owned())),
        (None, Some((_, at))) => return Err(lines.error(at, "tls-key needs tls-certificate".to_owned())),
    };
    Ok(server)
}

#[cfg(test)]
mod tests;
