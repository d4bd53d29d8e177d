//! One module for each command.

pub(crate) mod alto;
pub(crate) mod channels;
pub(crate) mod demo;
pub(crate) mod edge;
pub(crate) mod key;
pub(crate) mod publish;
pub(crate) mod register_links;
pub(crate) mod sim;
pub(crate) mod trace;
pub(crate) mod tracker;
pub(crate) mod watch;
