//! The public paths.

use std::net::IpAddr;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::Full;
use hyper::upgrade::OnUpgrade;

use crate::handshake::{Admitted, Handshake, Target};

/// All routes.
pub struct Routes {
    /// The path of the WebSocket: `{prefix}/ws`.
    socket_path: String,
    handshake: Handshake,
}

/// The response to a request.
pub enum RouteResponse {
    /// A plain response.
    Plain(Response<Full<Bytes>>),
    /// The response of an admitted handshake. After it the connection becomes a WebSocket.
    Socket(Admitted, OnUpgrade),
}

impl Routes {
    /// The routes below `prefix`.
    pub fn new(prefix: &str, handshake: Handshake) -> Self {
        Self { socket_path: format!("{prefix}/ws"), handshake }
    }

    /// The response to a request that came from `peer`.
    pub async fn answer<B>(&self, mut request: Request<B>, peer: IpAddr) -> RouteResponse {
        let target = if request.uri().path() != self.socket_path {
            Target::UnknownPath
        } else if request.method() != Method::GET {
            Target::OtherMethod
        } else {
            Target::Socket
        };
        match self.handshake.admit(&request, target, peer).await {
            Ok(admitted) => RouteResponse::Socket(admitted, hyper::upgrade::on(&mut request)),
            Err(rejection) => RouteResponse::Plain(rejection),
        }
    }
}
