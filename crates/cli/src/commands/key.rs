//! `caudal key`

use caudal_node::network::random_key;
use serde_json::json;

use crate::args::{KeyAction, KeyArgs};
use crate::run::{Failure, print_json, say};
use crate::state::{read_key, write_key};

pub(crate) fn run(args: KeyArgs) -> Result<(), Failure> {
    match args.action {
        KeyAction::New { file, json } => {
            let key = random_key()?;
            write_key(&file, &key)?;
            if json {
                print_json(&json!({ "channel": key.channel().to_string(), "file": file }))?;
            } else {
                say!("Channel: {}\nKey: {}", key.channel(), file.display());
                say!("Back it up: who has it owns the channel, and nobody can make it again.");
            }
        }
        KeyAction::Show { file, json } => {
            let channel = read_key(&file)?.channel();
            if json {
                print_json(&json!({ "channel": channel.to_string(), "file": file }))?;
            } else {
                say!("Channel: {channel}");
            }
        }
        KeyAction::Backup { file, to } => {
            let key = read_key(&file)?;
            // Making it would hide that a drive is not there, and the copy would lie beside the key.
            if let Some(folder) = to.parent().filter(|dir| !dir.as_os_str().is_empty() && !dir.is_dir()) {
                return Err(anyhow::anyhow!(
                    "cannot copy the key to {}: the folder {} does not exist; make it, or mount the drive that it is on",
                    to.display(),
                    folder.display()
                )
                .into());
            }
            write_key(&to, &key)?;
            say!("Copied the key of channel {} to {}", key.channel(), to.display());
        }
    }
    Ok(())
}
