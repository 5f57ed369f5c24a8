//! The close codes of the contract, and the close code for each error of a socket.

use tungstenite::Error;
use tungstenite::error::ProtocolError;
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode as WireCode;

/// A WebSocket close code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CloseCode(pub u16);

/// Declares the close codes and collects them in [`CloseCode::ALL`].
macro_rules! close_codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $reason:literal;)*) => {
        impl CloseCode {
            $($(#[$doc])* pub const $name: Self = Self($code);)*

            /// Every code of the contract.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The reason text of the close frame, for developers of clients.
            fn reason(self) -> &'static str {
                match self {
                    $(Self::$name => $reason,)*
                    _ => "",
                }
            }
        }
    };
}

close_codes! {
    /// The client closed the connection.
    NORMAL = 1000, "";
    /// The gateway stops without a drain.
    GOING_AWAY = 1001, "server stops";
    /// The client violated the WebSocket protocol.
    PROTOCOL = 1002, "protocol error";
    /// The client sent a binary frame.
    BINARY = 1003, "binary frames are not supported";
    /// The network failed, or the client left without a close frame. Never sent.
    ABNORMAL = 1006, "";
    /// The client sent a text frame that is not UTF-8.
    NOT_UTF8 = 1007, "text is not UTF-8";
    /// The client sent too many invalid or rate-limited requests.
    POLICY = 1008, "too many invalid requests";
    /// The client sent a frame over the limit.
    TOO_LARGE = 1009, "frame too large";
    /// An internal error of the service.
    INTERNAL = 1011, "internal error";
    /// The gateway restarts. The client should connect again.
    RESTART = 1012, "server restarts";
    /// Reserved: the service is overloaded.
    OVERLOAD = 1013, "";
    /// The token expired, was rejected, or belongs to another user.
    TOKEN = 4001, "token expired or rejected";
    /// Another connection of the user has replaced this one.
    REPLACED = 4002, "replaced by another connection";
    /// Reserved: an admin has ended the connection.
    DISCONNECTED = 4003, "disconnected";
    /// The client does not read. It should connect again and resume.
    TOO_SLOW = 4008, "client reads too slowly";
    /// The idle timeout of two heartbeat intervals has passed.
    HEARTBEAT = 4009, "heartbeat timeout";
}

impl CloseCode {
    /// The code that a brain requested. A code that must not be sent becomes [`CloseCode::INTERNAL`].
    pub fn requested(code: u32) -> Self {
        match u16::try_from(code) {
            Ok(code @ (1000..=1003 | 1007..=1013 | 3000..=4999)) => Self(code),
            _ => Self::INTERNAL,
        }
    }

    /// The code that answers an error of the socket. `None` if the other side can no longer receive it.
    pub(crate) fn answering(error: &Error) -> Option<Self> {
        match error {
            Error::Capacity(_) => Some(Self::TOO_LARGE),
            Error::Utf8(_) => Some(Self::NOT_UTF8),
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => None,
            Error::Protocol(_) | Error::AttackAttempt => Some(Self::PROTOCOL),
            _ => None,
        }
    }

    /// The code of a client's close frame.
    pub(crate) fn received(frame: Option<&CloseFrame>) -> Self {
        frame.map_or(Self::NORMAL, |frame| Self(frame.code.into()))
    }

    /// The close frame.
    pub(crate) fn frame(self) -> CloseFrame {
        CloseFrame { code: WireCode::from(self.0), reason: self.reason().into() }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::metrics::CloseLabel;

    #[test]
    fn the_protocol_page_names_every_close_code_and_no_other() {
        let page = include_str!("../../../docs/protocol.md");
        let (_, section) = page.split_once("\n## 9. Close codes").unwrap();
        let section = section.split("\n## ").next().unwrap();
        let words = section.split(|c: char| !c.is_ascii_digit()).filter(|word| word.len() == 4);
        let documented: BTreeSet<u16> = words.map(|word| word.parse().unwrap()).collect();
        assert_eq!(documented, CloseCode::ALL.iter().map(|code| code.0).collect());
    }

    #[test]
    fn every_close_code_is_counted_under_its_own_label() {
        let counted = CloseLabel::ALL.iter().filter_map(|label| label.as_str().parse().ok());
        assert_eq!(counted.collect::<BTreeSet<u16>>(), CloseCode::ALL.iter().map(|code| code.0).collect());
    }

    #[test]
    fn a_brain_cannot_request_a_code_that_must_not_be_sent() {
        for (requested, sent) in
            [(4001, 4001), (4002, 4002), (1012, 1012), (0, 1011), (1005, 1011), (1006, 1011), (70_000, 1011)]
        {
            assert_eq!(CloseCode::requested(requested), CloseCode(sent), "{requested}");
        }
    }
}
