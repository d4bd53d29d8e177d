//! The signed unit of transfer.
