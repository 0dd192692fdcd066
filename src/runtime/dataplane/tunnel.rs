//! Connections that leave HTTP, such as those of WebSocket.

use std::sync::Arc;

use hyper::header::{self, HeaderValue};
use hyper::http::request::Parts;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::pool::Lease;
use crate::runtime::web::guarded::InFlight;
use crate::runtime::web::server::Client;

/// Size of the buffer of each direction, in bytes.
const BUFFER_BYTES: usize = 16 * 1024;

/// The client's end of an upgrade that a request asks for, and the protocol; `None` if it asks for
/// none, or among others for HTTP/2: it can have that without, and here nobody would see its
/// requests.
pub(super) fn wish(parts: &mut Parts) -> Option<(OnUpgrade, HeaderValue)> {
    let protocol = parts.headers.get(header::UPGRADE)?.clone();
    let asks = parts.headers.get_all(header::CONNECTION).iter().any(|value| {
        let names = value.to_str().unwrap_or_default().split(',');
        names.map(str::trim).any(|name| name.eq_ignore_ascii_case("upgrade"))
    });
    let mut protocols = parts.headers.get_all(header::UPGRADE).iter();
    let is_http2 = protocols.any(|it| {
        let names = it.as_bytes().split(|byte| *byte == b',');
        names.map(<[u8]>::trim_ascii).any(|it| it.to_ascii_lowercase().starts_with(b"h2"))
    });
    if !asks || is_http2 {
        return None;
    }
    parts.extensions.remove::<OnUpgrade>().map(|it| (it, protocol))
}

/// Carries bytes in both directions until both have ended.
pub(super) async fn run(
    (client, server): (OnUpgrade, OnUpgrade),
    held: (Arc<Client>, Lease, InFlight),
) {
    let ends = tokio::try_join!(client, server);
    if let Ok((client, server)) = ends {
        let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
        // Its end is of no interest: both ends have seen it.
        let _ = tokio::io::copy_bidirectional_with_sizes(
            &mut client,
            &mut server,
            BUFFER_BYTES,
            BUFFER_BYTES,
        )
        .await;
    }
    drop(held);
}
