//! The token that shows that a request is the node's owner's. Never written to a log or a report.

use subtle::ConstantTimeEq as _;

use crate::NodeError;
use crate::network::random;

/// The header in which pages send it.
pub(super) const TOKEN_HEADER: &str = "x-caudal-token";
/// The first part of paths that carry it, for players, which take nothing but a URL.
pub(super) const TOKEN_PREFIX: &str = "/t/";

/// A random token, new with each start: 32 hexadecimal digits.
#[derive(Clone)]
pub struct Token(String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

impl Token {
    /// A new one.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub(super) fn new() -> Result<Self, NodeError> {
        Ok(Self(random::<16>()?.iter().map(|byte| format!("{byte:02x}")).collect()))
    }

    /// Whether `text` is this token; how long that takes says nothing of how much of it is right.
    pub(super) fn is(&self, text: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(text).into()
    }

    /// The token, for whoever started the node.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_is_the_token() {
        let token = Token::new().unwrap();
        assert_eq!(token.reveal().len(), 32);
        assert!(token.is(token.reveal().as_bytes()));
        for wrong in
            ["", &token.reveal()[1..], &format!("{}0", token.reveal()), Token::new().unwrap().reveal()]
        {
            assert!(!token.is(wrong.as_bytes()), "{wrong}");
        }
        assert_eq!(format!("{token:?}"), "Token", "it is not shown by accident");
    }
}
