//! The close codes of the contract, and the close code for each error of a socket.

use tungstenite::Error;
use tungstenite::error::ProtocolError;
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode as WireCode;

/// A WebSocket close code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CloseCode(pub u16);

impl CloseCode {
    /// The client closed the connection.
    pub const NORMAL: Self = Self(1000);
    /// The gateway stops without a drain.
    pub const GOING_AWAY: Self = Self(1001);
    /// The client violated the WebSocket protocol.
    pub const PROTOCOL: Self = Self(1002);
    /// The client sent a binary frame.
    pub const BINARY: Self = Self(1003);
    /// The network failed, or the client left without a close frame. Never sent.
    pub const ABNORMAL: Self = Self(1006);
    /// The client sent a text frame that is not UTF-8.
    pub const NOT_UTF8: Self = Self(1007);
    /// The client sent too many invalid or rate-limited requests.
    pub const POLICY: Self = Self(1008);
    /// The client sent a frame over the limit.
    pub const TOO_LARGE: Self = Self(1009);
    /// An internal error of the service.
    pub const INTERNAL: Self = Self(1011);
    /// The gateway restarts. The client should connect again.
    pub const RESTART: Self = Self(1012);
    /// The token expired, was rejected, or belongs to another user.
    pub const TOKEN: Self = Self(4001);
    /// The client does not read. It should connect again and resume.
    pub const TOO_SLOW: Self = Self(4008);
    /// The idle timeout of two heartbeat intervals has passed.
    pub const HEARTBEAT: Self = Self(4009);

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

    /// The reason text of the close frame, for developers of clients.
    fn reason(self) -> &'static str {
        match self {
            Self::GOING_AWAY => "server stops",
            Self::PROTOCOL => "protocol error",
            Self::BINARY => "binary frames are not supported",
            Self::NOT_UTF8 => "text is not UTF-8",
            Self::POLICY => "too many invalid requests",
            Self::TOO_LARGE => "frame too large",
            Self::INTERNAL => "internal error",
            Self::RESTART => "server restarts",
            Self::TOKEN => "token expired or rejected",
            Self(4002) => "replaced by another connection",
            Self(4003) => "disconnected",
            Self::TOO_SLOW => "client reads too slowly",
            Self::HEARTBEAT => "heartbeat timeout",
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
    fn a_brain_cannot_request_a_code_that_must_not_be_sent() {
        for (requested, sent) in
            [(4001, 4001), (4002, 4002), (1012, 1012), (0, 1011), (1005, 1011), (1006, 1011), (70_000, 1011)]
        {
            assert_eq!(CloseCode::requested(requested), CloseCode(sent), "{requested}");
        }
    }
}
