//! The public surface: which path leads where.

use std::net::IpAddr;

use bytes::Bytes;
use chatbox_shared::failure::{ErrorCode, Failure};
use http::{Method, Request, Response};
use http_body_util::Full;
use hyper::upgrade::OnUpgrade;

use crate::error;
use crate::handshake::{Admitted, Handshake};

/// All routes.
pub struct Routes {
    /// Where the WebSocket is: `{prefix}/ws`.
    socket_path: String,
    handshake: Handshake,
}

/// What the listener does with a request.
pub enum Answer {
    /// Send this.
    Plain(Response<Full<Bytes>>),
    /// Send the admission's response, then turn the connection into a WebSocket.
    Socket(Admitted, OnUpgrade),
}

impl Routes {
    /// The routes below `prefix`.
    pub fn new(prefix: &str, handshake: Handshake) -> Self {
        Self { socket_path: format!("{prefix}/ws"), handshake }
    }

    /// Answers one request that came from `peer`.
    pub async fn answer<B>(&self, mut request: Request<B>, peer: IpAddr) -> Answer {
        if request.uri().path() != self.socket_path {
            return Answer::Plain(error::response(&Failure::new(ErrorCode::NotFound)));
        }
        if request.method() != Method::GET {
            return Answer::Plain(error::method_not_allowed("GET"));
        }
        match self.handshake.admit(&request, peer).await {
            Ok(admitted) => Answer::Socket(admitted, hyper::upgrade::on(&mut request)),
            Err(refusal) => Answer::Plain(refusal),
        }
    }
}
