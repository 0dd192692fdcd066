//! Requests to data planes, as the commands and the demonstration make them.

use std::time::Duration;

use crate::runtime::web::client;

/// Answer of a data plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Reply {
    /// HTTP status of the answer.
    pub(in crate::cli) status: u16,
    /// Model that answered, by the header `X-Model`.
    pub(in crate::cli) model: Option<String>,
    /// Body of the answer.
    pub(in crate::cli) body: Vec<u8>,
}

/// Asks the data plane at `HOST:PORT`. With a body it is a POST, without one a GET.
///
/// # Errors
/// Fails with the reason for people if there is no whole answer in time.
pub(in crate::cli) fn request(
    at: &str,
    path: &str,
    body: Option<&[u8]>,
    timeout: Duration,
) -> Result<Reply, String> {
    let answer = client::request(&format!("http://{at}"), path, body, timeout);
    let answer = answer.map_err(|reason| {
        if reason.contains("Connection refused") {
            "nobody listens there".to_owned()
        } else {
            reason
        }
    })?;
    let model = answer.headers.get("x-model").and_then(|it| it.to_str().ok());
    Ok(Reply { status: answer.status, model: model.map(str::to_owned), body: answer.body })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_there_is_told_plainly() {
        let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let reply = request(&gone.to_string(), "/health", None, Duration::from_secs(5));
        assert_eq!(reply.unwrap_err(), "nobody listens there");
    }
}
