//! Why a connection ends: the close codes of the contract, and what a fault of the socket means in them.

use tungstenite::Error;
use tungstenite::error::ProtocolError;
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode as WireCode;

/// A WebSocket close code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CloseCode(pub u16);

impl CloseCode {
    /// The client is done.
    pub const NORMAL: Self = Self(1000);
    /// The process stops at once.
    pub const GOING_AWAY: Self = Self(1001);
    /// Not WebSocket.
    pub const PROTOCOL: Self = Self(1002);
    /// A binary frame.
    pub const BINARY: Self = Self(1003);
    /// The network failed, or the client left without a word. Never sent.
    pub const ABNORMAL: Self = Self(1006);
    /// A text frame that is not UTF-8.
    pub const NOT_UTF8: Self = Self(1007);
    /// Too many invalid or refused requests.
    pub const POLICY: Self = Self(1008);
    /// A frame over the limit.
    pub const TOO_LARGE: Self = Self(1009);
    /// A fault of the service.
    pub const INTERNAL: Self = Self(1011);
    /// The gateway restarts: connect again.
    pub const RESTART: Self = Self(1012);
    /// The token expired, was refused, or names somebody else.
    pub const TOKEN: Self = Self(4001);
    /// The client does not read: connect again and resume.
    pub const TOO_SLOW: Self = Self(4008);
    /// Silence for two heartbeats.
    pub const HEARTBEAT: Self = Self(4009);

    /// A code a brain asked for. What may not be sent becomes [`CloseCode::INTERNAL`].
    pub fn asked(code: u32) -> Self {
        match u16::try_from(code) {
            Ok(code @ (1000..=1003 | 1007..=1013 | 3000..=4999)) => Self(code),
            _ => Self::INTERNAL,
        }
    }

    /// The code that answers a fault of the socket; `None` where there is nobody left to answer.
    pub(crate) fn answering(error: &Error) -> Option<Self> {
        match error {
            Error::Capacity(_) => Some(Self::TOO_LARGE),
            Error::Utf8(_) => Some(Self::NOT_UTF8),
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => None,
            Error::Protocol(_) | Error::AttackAttempt => Some(Self::PROTOCOL),
            _ => None,
        }
    }

    /// The code a client closed with.
    pub(crate) fn received(frame: Option<&CloseFrame>) -> Self {
        frame.map_or(Self::NORMAL, |frame| Self(frame.code.into()))
    }

    /// What is sent with it, for people who look at the wire.
    fn reason(self) -> &'static str {
        match self {
            Self::GOING_AWAY => "the server stops",
            Self::PROTOCOL => "protocol error",
            Self::BINARY => "text frames only",
            Self::NOT_UTF8 => "not UTF-8",
            Self::POLICY => "too many invalid requests",
            Self::TOO_LARGE => "frame too large",
            Self::INTERNAL => "internal error",
            Self::RESTART => "the server restarts",
            Self::TOKEN => "token expired or refused",
            Self(4002) => "replaced by another connection",
            Self(4003) => "disconnected",
            Self::TOO_SLOW => "too slow",
            Self::HEARTBEAT => "heartbeat lost",
            _ => "",
        }
    }

    /// The close frame.
    pub(crate) fn frame(self) -> CloseFrame {
        CloseFrame { code: WireCode::from(self.0), reason: self.reason().into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_brain_cannot_ask_for_a_code_that_must_not_be_sent() {
        for (asked, sent) in
            [(4001, 4001), (4002, 4002), (1012, 1012), (0, 1011), (1005, 1011), (1006, 1011), (70_000, 1011)]
        {
            assert_eq!(CloseCode::asked(asked), CloseCode(sent), "{asked}");
        }
    }
}
