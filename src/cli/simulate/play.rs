//! Player of a run: the live page at a port of this machine, with the record of the run in place of
//! a node.

use std::net::Ipv4Addr;
use std::sync::Arc;

use hyper::body::Bytes;
use hyper::header::{ALLOW, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Response};

use crate::cli::output::print;
use crate::cli::run::signals;
use crate::cli::{CliError, page};
use crate::runtime::http::{Access, Content, HttpHandler, HttpRequest, HttpServer, text};
use crate::runtime::listen;
use crate::runtime::web::refusal::{JSON, own};

/// Path of the record.
const RUN: &str = "/-/folkmoot/run";

struct Player {
    record: Bytes,
}

/// Serves the page and the record until this process is asked to end.
pub(super) fn play(record: String) -> Result<(), CliError> {
    let failed = |error: std::io::Error| CliError::Failed(format!("cannot show the run: {error}"));
    let listener = listen::bind(Ipv4Addr::LOCALHOST.into(), 0)?;
    let ended = signals::listen(false).map_err(failed)?;
    let player = Arc::new(Player { record: record.into() });
    let server = HttpServer::new(player, Access::Loopback, Arc::default());
    let port = server.open(listener).map_err(failed)?;
    print(&format!("open http://{}/\n", port.addr()))?;
    // An error means that nobody can ask for the end any more.
    let _ = ended.recv();
    Ok(())
}

impl HttpHandler for Player {
    fn wants_body(&self, _: &Parts) -> bool {
        false
    }

    fn answer(&self, request: &HttpRequest) -> Response<Content> {
        let Parts { uri, method, headers, .. } = &request.head;
        if ![Method::GET, Method::HEAD].contains(method) {
            let mut answer = text(405, "this can be read and nothing else");
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return answer.map(Content::from);
        }
        let answer = match uri.path() {
            "/" => page::player(),
            RUN => own(200, JSON, self.record.clone()),
            path => match page::asset(path) {
                Some(asset) => asset.answer(headers),
                None => text(404, "nothing is here; see / and /-/folkmoot/run"),
            },
        };
        answer.map(Content::from)
    }
}
