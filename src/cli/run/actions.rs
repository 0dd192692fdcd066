//! Orders of this machine's user over HTTP: messages to the chat, and steps of a rollout.
//!
//! A page of another site must not give orders with the hands of a person who happens to look at
//! it. So an order comes from this machine, names this machine as host and origin, and has a header
//! that a browser lets no other site send without asking this node first, which never agrees.

use std::path::{Path, PathBuf};

use hyper::Response;
use hyper::body::Bytes;
use hyper::header::CONTENT_TYPE;
use serde_json::{Value, json};

use crate::cli::chat::web::{self as chat, Range, Said};
use crate::cli::rollout::web as rollout;
use crate::cli::{CliError, text::escape};
use crate::runtime::http::HttpRequest;
use crate::runtime::local_socket;
use crate::runtime::web::refusal::{JSON, Refusal, own};

/// Header that an order has, with any value.
const ORDER_HEADER: &str = "x-folkmoot";

/// Path of a message to the chat.
pub(super) const SAY: &str = "/-/folkmoot/chat/say";

/// Path of the history of the chat.
pub(super) const HISTORY: &str = "/-/folkmoot/chat/history";

/// Beginning of the paths of orders about rollouts.
const ROLLOUT: &str = "/-/folkmoot/rollout/";

/// True if this is the path of an order.
pub(super) fn is_order(path: &str) -> bool {
    path == SAY || path.strip_prefix(ROLLOUT).is_some_and(|it| rollout::order(it).is_some())
}

/// Directory of the chat that runs in the node of this status.
fn chat_dir(data: &Path, status: &Value) -> Option<PathBuf> {
    let id = status["chat"]["id"].as_u64().or(status["order"]["id"].as_u64())?;
    Some(data.join(format!("chat-{id}")))
}

/// Directory of the node of rollouts that runs in the node of this status.
fn rollout_dir(data: &Path, status: &Value) -> Option<PathBuf> {
    Some(data.join(format!("rollout-{}", status["rollout"]["node_id"].as_str()?)))
}

/// Sections of a status for the page: those of its services, in full.
pub(super) fn services(data: &Path, status: &Value) -> Value {
    let mut all = json!({});
    for name in ["chat", "order", "rollout", "shares", "network"] {
        if let Some(section) = status.get(name).filter(|it| !it.is_null()) {
            all[name] = section.clone();
        }
    }
    if let Some(full) = chat_dir(data, status).and_then(|dir| chat::status(&dir).ok()) {
        all["chat"]["status"] = full;
    }
    if let Some(full) = rollout_dir(data, status).and_then(|dir| rollout::status(dir).ok()) {
        all["rollout"]["view"] = full;
    }
    all
}

/// Answers with the history of the chat.
pub(super) fn history(request: &HttpRequest, data: &Path, status: &Value) -> Response<Bytes> {
    let Some(dir) = chat_dir(data, status) else { return no_service("chat", "--chat N") };
    let mut range = Range { room: None, after: None, limit: 200 };
    for pair in request.head.uri.query().unwrap_or_default().split('&') {
        let number = |text: &str| text.parse::<u64>().ok();
        match pair.split_once('=') {
            Some(("room", room)) if !room.is_empty() => range.room = Some(decoded(room)),
            Some(("after", text)) if number(text).is_some() => range.after = number(text),
            Some(("limit", text)) if number(text).is_some() => {
                range.limit = number(text).and_then(|it| it.try_into().ok()).unwrap_or(usize::MAX);
            }
            _ if pair.is_empty() => {}
            _ => {
                let reason = format!(
                    "{:?} is no part of a question for history; ask ?room=NAME&after=N&limit=N",
                    escape(pair)
                );
                return Refusal::new(400, "bad_query", &reason).response();
            }
        }
    }
    match chat::history(&dir, &range) {
        Ok(history) => own(200, JSON, format!("{history}\n")),
        Err(error) => failure(&error),
    }
}

/// Text of a part of a query: `+` is a space, `%XX` a byte.
fn decoded(part: &str) -> String {
    let bytes = part.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while let Some(byte) = bytes.get(at) {
        let hex = part.get(at + 1..at + 3).and_then(|it| u8::from_str_radix(it, 16).ok());
        match (byte, hex) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 2;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(*byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Carries out an order.
pub(super) fn order(request: &HttpRequest, data: &Path, status: &Value) -> Response<Bytes> {
    if let Err(refusal) = may_order(request) {
        return refusal.response();
    }
    let path = request.head.uri.path();
    if let Some(order) = path.strip_prefix(ROLLOUT).and_then(rollout::order) {
        let Some(dir) = rollout_dir(data, status) else {
            return no_service("rollout", "--rollout NAME");
        };
        return match rollout::carry_out(dir, &order) {
            Ok(said) => own(200, JSON, json!({ "said": said.trim_end() }).to_string()),
            Err(error) => failure(&error),
        };
    }
    let Some(dir) = chat_dir(data, status) else { return no_service("chat", "--chat N") };
    let said = match serde_json::from_slice::<Said>(&request.body) {
        Ok(said) => said,
        Err(error) => {
            let reason = format!("{error}; send {{\"room\":\"general\",\"text\":\"…\"}}");
            return Refusal::new(400, "bad_body", &reason).response();
        }
    };
    match chat::say(&dir, said) {
        Ok(answer) => own(200, JSON, format!("{answer}\n")),
        Err(error) => failure(&error),
    }
}

fn may_order(request: &HttpRequest) -> Result<(), Refusal> {
    let own = rustix::process::geteuid().as_raw();
    // The control socket is closed to other users of this machine; the port is open to all.
    let user = local_socket::owner(request.from).unwrap_or(own);
    if request.is_own() && user != own && user != 0 {
        let reason = format!(
            "this node runs as user {own}, and orders are taken from that user and root; you are \
             {user}"
        );
        return Err(Refusal::new(403, "another_user", &reason));
    }
    if !request.is_own() {
        let reason = "orders are taken from this machine alone, by its address or localhost; \
                      elsewhere use the commands of peer at the node";
        return Err(Refusal::new(403, "not_here", reason));
    }
    let headers = &request.head.headers;
    if !headers.contains_key(ORDER_HEADER) {
        let reason = format!("an order has the header {ORDER_HEADER}: 1");
        return Err(Refusal::new(403, "no_order", &reason));
    }
    let kind = headers.get(CONTENT_TYPE).and_then(|it| it.to_str().ok()).unwrap_or_default();
    if kind.split(';').next().map(str::trim) != Some(JSON) {
        let reason = format!("an order is {JSON}, not {kind:?}");
        return Err(Refusal::new(415, "not_json", &reason));
    }
    Ok(())
}

fn no_service(name: &str, flag: &str) -> Response<Bytes> {
    let reason = format!("no {name} runs in this node; start it with {flag}");
    Refusal::new(404, "no_service", &reason).response()
}

fn failure(error: &CliError) -> Response<Bytes> {
    let (status, code) = if matches!(error, CliError::Usage(_)) {
        (400, "bad_request")
    } else if matches!(error, CliError::Unanswered(_)) {
        (504, "not_known")
    } else if matches!(error, CliError::System { .. }) {
        (503, "unavailable")
    } else {
        (409, "refused")
    };
    Refusal::new(status, code, &error.to_string()).response()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use hyper::Request;

    use super::*;

    fn request(from: &str, headers: &[(&str, &str)]) -> HttpRequest {
        let mut builder = Request::post(SAY);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        let head = builder.body(()).unwrap().into_parts().0;
        let from: SocketAddr = from.parse().unwrap();
        HttpRequest { head, body: Bytes::new(), from }
    }

    #[test]
    fn only_this_machines_user_gives_orders() {
        const ORDER: (&str, &str) = (ORDER_HEADER, "1");
        const KIND: (&str, &str) = ("content-type", "application/json; charset=utf-8");
        let here = ("host", "127.0.0.1:6001");
        let status = |from, headers: &[(&str, &str)]| {
            may_order(&request(from, headers)).map_err(|it| it.status)
        };
        assert_eq!(status("127.0.0.1:1", &[here, ORDER, KIND]), Ok(()));
        let own = ("origin", "http://127.0.0.1:6001");
        assert_eq!(status("127.0.0.1:1", &[here, own, ORDER, KIND]), Ok(()));
        for foreign in ["http://evil.example", "null", "http://127.0.0.1:6002", "127.0.0.1:6001"] {
            let origin = ("origin", foreign);
            assert_eq!(status("127.0.0.1:1", &[here, origin, ORDER, KIND]), Err(403), "{foreign}");
        }
        let rebound = ("host", "evil.example:6001");
        assert_eq!(status("127.0.0.1:1", &[rebound, ORDER, KIND]), Err(403));
        assert_eq!(status("192.0.2.1:1", &[here, ORDER, KIND]), Err(403));
        assert_eq!(status("127.0.0.1:1", &[here, KIND]), Err(403));
        assert_eq!(status("127.0.0.1:1", &[here, ORDER]), Err(415));
        assert_eq!(status("127.0.0.1:1", &[here, ORDER, ("content-type", "text/plain")]), Err(415));
    }

    #[test]
    fn a_part_of_a_query_is_decoded() {
        assert_eq!(decoded("a+b%20c%C3%A9%"), "a b cé%");
        assert_eq!(decoded("%zz%4"), "%zz%4");
    }
}
