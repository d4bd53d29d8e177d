//! Delivery policy.

/// Placeholder.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Policy {}
