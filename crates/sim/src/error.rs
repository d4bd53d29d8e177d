//! What can be wrong with a request for a simulation.

/// Why a simulation cannot be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SimError {
    /// A population profile is unknown or makes no sense.
    #[error("profile {0}: {1}")]
    Profile(String, String),
    /// An event of the scenario is not understood.
    #[error("event '{0}': {1}")]
    Event(String, &'static str),
    /// An attack is not understood.
    #[error("attack '{0}': {1}")]
    Attack(String, &'static str),
    /// A constant of the delivery policy is not known.
    #[error("policy '{0}': {1}")]
    Policy(String, &'static str),
    /// A plot could not be written.
    #[error("plot {0}: {1}")]
    Plot(String, String),
    /// Something else is out of range.
    #[error("{0}")]
    Range(String),
}
