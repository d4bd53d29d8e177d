//! What may be typed after `caudal alto`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};

use crate::units::parse_listen;

#[derive(Debug, ClapArgs)]
pub(crate) struct AltoArgs {
    #[command(subcommand)]
    pub(crate) command: AltoCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AltoCommand {
    /// Serve the maps of a file; an edit is served at once, a wrong one is not.
    Serve(ServeArgs),
    /// Ask an ALTO server, of this or any other make.
    Query(QueryArgs),
    /// Make a file from a table of which addresses belong to which autonomous system.
    Build(BuildArgs),
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:\n  caudal alto serve --config alto.toml\n  \
                        caudal alto serve --config alto.toml --check          (says what is wrong, and in which line)\n  \
                        caudal alto serve --config alto.toml --listen 0.0.0.0:7780")]
pub(crate) struct ServeArgs {
    /// The file with PIDs and costs (docs/alto.md); read again when it changes.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// TCP address to listen on.
    #[arg(long, default_value = "127.0.0.1:7780", value_name = "ADDR", value_parser = parse_listen)]
    pub(crate) listen: SocketAddr,
    /// Only read the file and say what is in it.
    #[arg(long)]
    pub(crate) check: bool,
    /// Print a ready line as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:\n  caudal alto query http://127.0.0.1:7780\n  \
                        caudal alto query http://127.0.0.1:7780 network-map\n  \
                        caudal alto query http://127.0.0.1:7780 pid 203.0.113.7 2001:db8:a::1\n  \
                        caudal alto query http://127.0.0.1:7780 cost 203.0.113.7 198.51.100.1 192.0.2.9\n  \
                        caudal alto query http://127.0.0.1:7780 --metric delay-rt cost-map --json")]
pub(crate) struct QueryArgs {
    /// The server's directory.
    #[arg(value_name = "URL")]
    pub(crate) url: String,
    /// The network map (default: the server's default one).
    #[arg(long, value_name = "ID")]
    pub(crate) map: Option<String>,
    /// The metric of costs.
    #[arg(long, default_value = "routingcost", value_name = "METRIC")]
    pub(crate) metric: String,
    /// Let the server look addresses up, instead of fetching its maps: it learns which addresses you ask about.
    #[arg(long)]
    pub(crate) by_server: bool,
    /// Trust the authorities in this file (PEM) instead of the system's.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Print JSON.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) what: Option<What>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum What {
    /// What the server offers (the default).
    Directory,
    /// PIDs and their prefixes.
    NetworkMap,
    /// Costs between PIDs.
    CostMap,
    /// In which PID each address is.
    Pid {
        /// Addresses.
        #[arg(required = true, value_name = "ADDR")]
        addresses: Vec<IpAddr>,
    },
    /// What it costs to get from an address to others.
    Cost {
        /// From here.
        #[arg(value_name = "SRC")]
        src: IpAddr,
        /// To there.
        #[arg(required = true, value_name = "DST")]
        dsts: Vec<IpAddr>,
    },
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:\n  caudal alto build --asn ip2asn-combined.tsv --out alto.toml\n  \
                        caudal alto build --asn prefixes.csv --pids 50 --same 1 --peering 3 --transit 10 > alto.toml")]
pub(crate) struct BuildArgs {
    /// The table: FIRST LAST AS COUNTRY NAME separated by tabs, as iptoasn.com has it, or PREFIX,AS and perhaps ,COUNTRY.
    #[arg(long, value_name = "FILE")]
    pub(crate) asn: PathBuf,
    /// Where to write the map (default: standard output).
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// So many of the largest autonomous systems get a PID of their own; the others one per country.
    #[arg(long, default_value_t = 200, value_name = "N")]
    pub(crate) pids: usize,
    /// Cost within a PID.
    #[arg(long, default_value_t = 1.0, value_name = "COST", value_parser = parse_cost)]
    pub(crate) same: f64,
    /// Cost between PIDs of one country.
    #[arg(long, default_value_t = 5.0, value_name = "COST", value_parser = parse_cost)]
    pub(crate) peering: f64,
    /// Cost between all others.
    #[arg(long, default_value_t = 20.0, value_name = "COST", value_parser = parse_cost)]
    pub(crate) transit: f64,
}

fn parse_cost(text: &str) -> Result<f64, String> {
    let cost = text.parse::<f64>().ok().filter(|cost| cost.is_finite() && *cost >= 0.0);
    cost.ok_or_else(|| "a number from 0 is expected, such as 5 or 2.5".to_owned())
}
