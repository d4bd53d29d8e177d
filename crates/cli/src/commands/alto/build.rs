//! `caudal alto build`

use anyhow::{Context as _, anyhow};
use caudal_alto::build::{BuildOptions, build};

use super::args::BuildArgs;
use crate::run::{Failure, print};

/// What a compressed file begins with.
const GZIP: [u8; 2] = [0x1f, 0x8b];

pub(super) fn run(args: &BuildArgs) -> Result<(), Failure> {
    let shown = args.asn.display();
    let bytes = std::fs::read(&args.asn).with_context(|| format!("cannot read the table {shown}"))?;
    if bytes.starts_with(&GZIP) {
        return Err(anyhow!("{shown} is compressed: unpack it first, with gunzip {shown}").into());
    }
    let table =
        String::from_utf8(bytes).map_err(|_| anyhow!("{shown} is not text in UTF-8; is it a table?"))?;
    let options = BuildOptions {
        pids: args.pids,
        same: args.same,
        peering: args.peering,
        transit: args.transit,
        source: args.asn.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
    };
    let built = build(&table, &options).map_err(|error| anyhow!("{shown}: {error}"))?;
    match &args.out {
        Some(out) => {
            std::fs::write(out, &built.text).with_context(|| format!("cannot write {}", out.display()))?;
        }
        None => print(built.text.as_bytes())?,
    }
    eprintln!(
        "{} rows ({} left out), {} autonomous systems: {} PIDs, {} prefixes",
        built.rows, built.skipped, built.systems, built.pids, built.prefixes
    );
    if let Some(out) = &args.out {
        eprintln!("To serve it: caudal alto serve --config {}", out.display());
    }
    Ok(())
}
