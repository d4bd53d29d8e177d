//! `caudal watch --tui`: the whole terminal shows how it goes.
//!
//! | module | owns |
//! |---|---|
//! | [`app`] | the thread that looks, draws and reads keys |
//! | [`view`] | what is drawn of a [`view::Scene`], and nothing else: no clock, no terminal |
//! | [`terminal`] | taking the terminal and giving it back, whatever happens |
//!
//! It only looks at the viewer. What it shows of strangers' words is made harmless where it enters a line of the view.

pub(crate) mod app;
pub(crate) mod terminal;
pub(crate) mod view;
