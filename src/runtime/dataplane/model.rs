//! A small server of a model, for demonstrations and tests: it answers with its name and its input,
//! with a set delay and a set share of failures.
//!
//! Invariant: of any number of its answers, the share that fails is the one asked for, within one
//! answer; which ones these are does not depend on chance.

use std::fmt;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use serde_json::json;

use super::answers::{Going, input_of, refusal, refusal_of_end, write_own};
use super::limits::DataPlaneLimits;
use super::request_reader::{ReadEnd, RequestReader};
use super::server::{ConnectionHandler, PortServer, ServerState};
use super::sockets::SocketPermit;
use super::texts;
use crate::proto::http::{RequestHead, room};
use crate::proto::rollout::{BASIS_POINTS, ModelId};
use crate::runtime::driver::counters::Counter;
use crate::runtime::listen::ListenError;

/// Options of a model.
#[derive(Clone, Debug)]
pub struct ModelOptions {
    /// Listen address; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Name of the model.
    pub name: ModelId,
    /// Pause before each answer.
    pub delay: Duration,
    /// Number of failures in 10,000 requests; above that, all fail.
    pub failing: u32,
}

/// A model that runs until it is stopped or dropped.
pub struct Model {
    shared: Arc<Shared>,
    port: PortServer,
    /// Sender whose drop ends the delays under way.
    running: Mutex<Option<Sender<()>>>,
}

struct Shared {
    server: ServerState,
    options: ModelOptions,
    /// Start of each answer, up to the input, behind which a brace follows.
    prefix: Vec<u8>,
    /// Number of requests that it was asked.
    asked: AtomicU64,
    refused_busy: Counter,
    is_over: Receiver<()>,
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model").field("options", &self.shared.options).finish_non_exhaustive()
    }
}

impl Model {
    /// Listens and answers every POST, whatever its path.
    ///
    /// # Errors
    /// Fails if the address cannot be listened on.
    pub fn start(options: ModelOptions) -> Result<Self, ListenError> {
        // All requests come from a few nodes, so one address may have all connections.
        let limits = DataPlaneLimits::default();
        let limits = DataPlaneLimits { connections_of_one: limits.connections, ..limits };
        let named = json!({ "model": options.name }).to_string();
        let prefix = format!("{},\"input\":", named.trim_end_matches('}')).into_bytes();
        let (running, is_over) = crossbeam_channel::bounded(0);
        let listen = options.listen;
        let shared = Arc::new(Shared {
            server: ServerState::new(limits),
            options,
            prefix,
            asked: AtomicU64::new(0),
            refused_busy: Counter::default(),
            is_over,
        });
        let port = PortServer::open(listen, "model", &shared)?;
        Ok(Self { shared, port, running: Mutex::new(Some(running)) })
    }

    /// Listen address of the model.
    pub const fn addr(&self) -> SocketAddr {
        self.port.addr()
    }

    /// Number of requests that it was asked.
    pub fn asked(&self) -> u64 {
        self.shared.asked.load(Ordering::Relaxed)
    }

    /// Stops the model, without waiting for delays. Returns when no thread and no socket is left.
    pub fn stop(&self) {
        drop(self.running.lock().expect("nothing under this lock can panic").take());
        self.port.shut(&self.shared.server);
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        self.stop();
    }
}

impl ConnectionHandler for Shared {
    fn server(&self) -> &ServerState {
        &self.server
    }

    fn serve(&self, stream: Arc<TcpStream>, _: &SocketPermit) {
        let Ok(mut reader) = RequestReader::new(&self.server, stream) else { return };
        let mut out = Vec::new();
        let end = loop {
            out.clear();
            match self.turn(&mut reader, &mut out) {
                Ok(true) => {}
                Ok(false) => break ReadEnd::Done,
                Err(end) => break end,
            }
        };
        out.clear();
        let is_refused = refusal_of_end(&mut out, &end, &self.server.limits);
        let is_told = is_refused && reader.socket.write_all(&out).is_ok();
        if is_told || matches!(end, ReadEnd::Done) {
            reader.part();
        }
    }

    fn count(&self, has_room: bool) {
        self.refused_busy.add(u64::from(!has_room));
    }
}

impl Shared {
    /// Answers one request; returns whether another may follow.
    fn turn(&self, reader: &mut RequestReader<'_>, out: &mut Vec<u8>) -> Result<bool, ReadEnd> {
        let head_len = reader.read_head()?;
        let (is_post, is_head, framing, expects_continue, mut going) = {
            let mut room = room();
            let outline =
                RequestHead::parse(reader.head(head_len), &mut room).map_err(ReadEnd::Fault)?;
            let is_last = !outline.keep_alive || !self.server.lets_go_on();
            let going = match (is_last, outline.minor) {
                (true, _) => Going::Off,
                (false, 0) => Going::OnAfterAll,
                (false, _) => Going::On,
            };
            let RequestHead { method, framing, expects_continue, .. } = outline;
            (method == "POST", method == "HEAD", framing, expects_continue, going)
        };
        let len = reader.read_body(head_len, framing, expects_continue)?;
        if is_post {
            going = self.answer(reader.body(head_len, framing), going, out);
        } else {
            let reason = "a model has POST";
            refusal(out, 405, "no_such_method", reason, b"Allow: POST\r\n", going);
            if is_head {
                let end = out.windows(4).position(|four| four == b"\r\n\r\n");
                out.truncate(end.map_or(out.len(), |end| end + 4));
            }
        }
        reader.socket.write_all(out).map_err(|_| ReadEnd::Broken)?;
        reader.forget(len);
        Ok(going != Going::Off)
    }

    /// Writes an answer; returns whether the connection goes on.
    fn answer(&self, body: &[u8], going: Going, out: &mut Vec<u8>) -> Going {
        let ModelOptions { name, delay, failing, .. } = &self.options;
        let number = self.asked.fetch_add(1, Ordering::Relaxed);
        if self.is_over.recv_timeout(*delay) == Err(RecvTimeoutError::Disconnected) {
            refusal(out, 503, "stopping", "this model is being stopped", &[], Going::Off);
            return Going::Off;
        }
        if fails(number, *failing) {
            let reason = format!("model {name} fails {failing} of {BASIS_POINTS} requests");
            refusal(out, 500, "failing", &reason, &[], going);
            return going;
        }
        let mut text = self.prefix.clone();
        text.extend_from_slice(input_of(body));
        text.push(b'}');
        write_own(out, 200, texts::JSON, &[], &text, going);
        going
    }
}

/// True if the request of that number is among the `failing` of 10,000, which are spread evenly.
fn fails(number: u64, failing: u32) -> bool {
    let all = u64::from(BASIS_POINTS);
    let (number, failing) = (number % all, u64::from(failing).min(all));
    (number + 1) * failing / all > number * failing / all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_that_fails_is_the_one_asked_for() {
        for failing in [0, 1, 500, 2_000, 3_333, 9_999, 10_000, 20_000] {
            let wanted = u64::from(failing.min(10_000));
            let mut failed = 0;
            for number in 0..20_000_u64 {
                let exact = number * wanted;
                assert!(failed * 10_000 <= exact && exact < failed * 10_000 + 10_000);
                failed += u64::from(fails(number, failing));
            }
            assert_eq!(failed, 2 * wanted, "{failing}");
        }
    }
}
