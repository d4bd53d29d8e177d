//! `caudal sim` without the rest of `caudal`: quick to build while the engine is being tuned.
//!
//! ```text
//! cargo run --release -p caudal-sim --features args,plot --example sim -- --peers 1000
//! ```

use std::process::ExitCode;

use caudal_sim::args::SimArgs;
use caudal_sim::report::Summary;
use clap::Parser;

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    sim: SimArgs,
}

fn main() -> ExitCode {
    let args = Args::parse().sim;
    let typed = std::env::args().skip(1).map(|word| quote(&word)).collect::<Vec<_>>().join(" ");
    let print = |report: &caudal_sim::Report| match serde_json::to_string(report) {
        Ok(json) if args.json => println!("{json}"),
        _ => println!("{report}\n"),
    };
    match args.run(&format!("caudal sim {typed}"), "", print) {
        Ok(reports) => {
            if reports.len() > 1 && !args.json {
                println!("{}", Summary(&reports));
            }
            ExitCode::from(u8::from(!reports.iter().all(|report| report.ok)))
        }
        Err(error) => {
            eprintln!("sim: {error}");
            ExitCode::from(2)
        }
    }
}

fn quote(word: &str) -> String {
    if word.contains(' ') { format!("'{word}'") } else { word.to_owned() }
}
