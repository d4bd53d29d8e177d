//! Constants of the delivery policy by name, for tuning: `--set switch_hold=1500`. Durations in ms.

use std::time::Duration;

use caudal_proto::swarm::policy::{Overlay, Policy};

use crate::error::SimError;

/// A field of [`Policy`] that a number can be put into.
trait Field {
    fn put(&mut self, number: u64) -> bool;
}

impl Field for Duration {
    fn put(&mut self, number: u64) -> bool {
        *self = Self::from_millis(number);
        number <= 3_600_000
    }
}

impl Field for bool {
    fn put(&mut self, number: u64) -> bool {
        *self = number == 1;
        number <= 1
    }
}

macro_rules! integers {
    ($($of:ty),*) => {$(impl Field for $of {
        fn put(&mut self, number: u64) -> bool {
            let Ok(number) = number.try_into() else { return false };
            *self = number;
            true
        }
    })*};
}
integers!(usize, u32, u8);

macro_rules! fields {
    ($policy:expr, $name:expr, $number:expr; $($field:ident)*) => {
        match $name {
            $(stringify!($field) => Some($policy.$field.put($number)),)*
            _ => None,
        }
    };
}

/// Sets one constant; `text` is `name=number`.
///
/// # Errors
/// [`SimError::Policy`], naming what is wrong.
pub fn set(policy: &mut Policy, text: &str) -> Result<(), SimError> {
    let wrong = |what| SimError::Policy(text.to_owned(), what);
    let (name, number) = text.split_once('=').ok_or_else(|| wrong("expected NAME=NUMBER"))?;
    let number: u64 =
        number.trim().parse().map_err(|_| wrong("a whole number is expected; durations in ms"))?;
    let done = fields!(policy, name.trim(), number;
        locality away away_relay away_pull links_out neighbours_wanted neighbours_first neighbours_max source_neighbours_max slot_fill_percent slot_fill_urgent_percent interior_every
        class_period overdue_after last_call_after serve_wait_overdue overdue_percent joining_max crowded_wait join_wait_max
        leaf_delay shed_wait age_percent sibling_delay state_period_min state_period_max control_percent
        switch_gain_percent switch_gain switch_hold probe_after probe_timeout starve_after attach_timeout urgent_after
        pull_after pull_after_has pull_unproven_after pull_orphan_after lock pipeline pipeline_joining serve_wait
        serve_wait_joining serve_standing serve_after serve_after_joining push_expiry pull_expiry join_back join_back_max strikes_max
        join_back_scarce scarce_wait requests_joining near_worth queueing_wait
        source_repair_percent source_savings strike_decay note_period pex_period silence redial_after dial_period
    );
    match done {
        Some(true) => Ok(()),
        Some(false) => Err(wrong("the number is out of range")),
        None => Err(wrong("there is no such constant; see proto's swarm/policy.rs")),
    }
}

/// An overlay by name.
///
/// # Errors
/// [`SimError::Policy`] for another name than `hybrid`, `tree` or `mesh`.
pub fn overlay(name: &str) -> Result<Overlay, SimError> {
    match name {
        "hybrid" => Ok(Overlay::Hybrid),
        "tree" => Ok(Overlay::Tree),
        "mesh" => Ok(Overlay::Mesh),
        _ => Err(SimError::Policy(name.to_owned(), "hybrid, tree or mesh is expected")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_are_set_by_name() {
        let mut policy = Policy::default();
        set(&mut policy, "switch_hold=1234").expect("a constant");
        set(&mut policy, "interior_every=3").expect("a constant");
        assert_eq!((policy.switch_hold, policy.interior_every), (Duration::from_millis(1234), 3));
        for bad in ["switch_hold", "switch_hold=x", "no_such=1", "interior_every=300"] {
            assert!(set(&mut policy, bad).is_err_and(|error| error.to_string().contains(bad)), "{bad}");
        }
    }
}
