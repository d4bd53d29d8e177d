//! Attackers.

use crate::error::SimError;

/// A share of the swarm that attacks.
#[derive(Debug, Clone, PartialEq)]
pub struct Attack {
    /// How.
    pub kind: AttackKind,
    /// Of all viewers, in addition to the honest ones.
    pub share: f64,
}

/// What attackers do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttackKind {
    /// Does not upload, and does not say so.
    FreeRider,
}

impl std::str::FromStr for Attack {
    type Err = SimError;
    fn from_str(text: &str) -> Result<Self, SimError> {
        Err(SimError::Attack(text.to_owned(), "not yet"))
    }
}

/// A hostile peer's state.
#[derive(Debug)]
pub(crate) struct Hostility;
