//! What can go wrong before a node is on the network. Afterwards, trouble with a peer is an input of the engine.

use std::net::SocketAddr;

/// Why a link could not be opened, or a driver not be reached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetError {
    /// The operating system refused the addresses, or TLS could not be set up.
    #[error(
        "cannot open UDP on {}: {reason}; choose a free port, or port 0 for any",
        list(.addrs)
    )]
    Bind {
        /// The addresses asked for; empty: any address, any port.
        addrs: Vec<SocketAddr>,
        /// What the transport said.
        reason: String,
    },
    /// Two addresses of one family, where one is expected.
    #[error(
        "cannot listen on both {0} and another address of its family: give one IPv4 and one IPv6 address at most"
    )]
    SameFamily(SocketAddr),
    /// The relay's URL does not parse.
    #[error("the relay {url:?} is not an http or https URL: {reason}")]
    Relay {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The driver has ended.
    #[error("this node has left the network")]
    Ended,
    /// The driver's command queue is full.
    #[error("this node is too busy to take another command now: try again")]
    Busy,
}

fn list(addrs: &[SocketAddr]) -> String {
    if addrs.is_empty() {
        return "any address".into();
    }
    addrs.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bind_error_names_the_address_and_what_to_do() {
        let addr = "127.0.0.1:9".parse().unwrap();
        let text = NetError::Bind { addrs: vec![addr], reason: "address in use".into() }.to_string();
        assert!(
            text.contains("127.0.0.1:9") && text.contains("address in use") && text.contains("port 0"),
            "{text}"
        );
    }
}
