//! `caudal sim` without the rest of `caudal`: quick to build while the engine is being tuned.
//!
//! ```text
//! cargo run --release -p caudal-sim --features args --example sim -- --peers 1000
//! ```

use std::process::ExitCode;
use std::time::Instant;

use caudal_sim::args::SimArgs;
use clap::Parser;

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    sim: SimArgs,
}

fn main() -> ExitCode {
    let args = Args::parse().sim;
    let typed = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
    let mut config = match args.config(&format!("caudal sim {typed}")) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("sim: {error}");
            return ExitCode::from(2);
        }
    };
    let mut ok = true;
    for seed in args.seed..args.seed + args.seeds.max(1) {
        config.seed = seed;
        let started = Instant::now();
        match caudal_sim::run(config.clone()) {
            Ok(mut report) => {
                report.wall_ms = started.elapsed().as_millis() as u64;
                ok &= report.ok;
                if args.json {
                    println!("{}", serde_json::to_string(&report).expect("numbers and text"));
                } else {
                    println!("{report}\n");
                }
            }
            Err(error) => {
                eprintln!("sim: {error}");
                return ExitCode::from(2);
            }
        }
    }
    ExitCode::from(u8::from(!ok))
}
