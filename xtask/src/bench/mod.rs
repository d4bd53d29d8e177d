//! stub
#[derive(clap::Subcommand)]
pub(crate) enum Bench {
    /// stub
    Relay,
}
pub(crate) fn run(_: &Bench) -> anyhow::Result<bool> {
    Ok(true)
}
