//! Bodies on their way through: from the client to a server, and back.
//!
//! No body is held. The next part is read when the last one was taken, so the slower end sets the
//! pace, and a body of any length needs the memory of a few parts.

use std::collections::VecDeque;
use std::error::Error;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};

use super::access_log::AccessLine;
use super::limits::DataPlaneLimits;
use super::meters::Meter;
use super::pool::Lease;
use crate::machine::rollout::RequestOutcome;
use crate::runtime::clock::Clock;
use crate::runtime::web::guarded::InFlight;
use crate::runtime::web::refusal::Refusal;

/// Time after which a body is sent although its server has not said that it wants it.
const WANTED_WITHIN: Duration = Duration::from_secs(1);

/// Fault of a body.
pub(super) type BodyError = Box<dyn Error + Send + Sync>;

/// Timer of a wait; it costs nothing while parts come without one.
#[derive(Debug, Default)]
struct Wait {
    timer: Option<Pin<Box<Sleep>>>,
    is_waiting: bool,
}

impl Wait {
    /// Ends the wait: a part has come.
    fn end(&mut self) {
        self.is_waiting = false;
    }

    /// Waits until `span` has passed since the wait began, or until `end` if that is earlier.
    fn poll(&mut self, cx: &mut Context<'_>, span: Duration, end: Option<Instant>) -> Poll<()> {
        if !self.is_waiting {
            self.is_waiting = true;
            let until = Instant::now() + span;
            let until = end.map_or(until, |end| end.min(until));
            match &mut self.timer {
                Some(timer) => timer.as_mut().reset(until),
                None => self.timer = Some(Box::pin(tokio::time::sleep_until(until))),
            }
        }
        self.timer.as_mut().map_or(Poll::Ready(()), |timer| timer.as_mut().poll(cx))
    }
}

/// Progress of a body that a client sends.
#[derive(Debug, Default)]
pub(super) struct Transfer {
    /// Fault of the client, if there is one.
    fault: OnceLock<Refusal>,
    /// Moment at which the last part was taken.
    moved: Mutex<Option<Instant>>,
}

impl Transfer {
    /// Fault of the client, if there is one.
    pub(super) fn fault(&self) -> Option<&Refusal> {
        self.fault.get()
    }

    /// Moment at which the last part was taken; `None` if none was.
    pub(super) fn moved(&self) -> Option<Instant> {
        *self.moved.lock().expect("nothing under this lock can panic")
    }
}

/// Body of a request on its way to a server.
pub(super) enum RequestBody {
    /// A body that is here.
    Whole(Option<Bytes>),
    /// A body that the client sends.
    Streamed(Box<ClientBody>),
}

/// Body that a client sends, with limits.
pub(super) struct ClientBody {
    /// Parts that were read already.
    read: VecDeque<Frame<Bytes>>,
    /// Fault behind these parts.
    broken: Option<hyper::Error>,
    rest: Incoming,
    limits: DataPlaneLimits,
    /// True if the pace has a limit.
    is_paced: bool,
    came: u64,
    /// Moment since which the next part is waited for.
    waited_since: Option<Instant>,
    /// Time for which parts were waited for before.
    waited: Duration,
    wait: Wait,
    /// Wait until the server wants the body; nothing is read before.
    wanted: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    transfer: Arc<Transfer>,
}

impl ClientBody {
    pub(super) fn new(rest: Incoming, limits: DataPlaneLimits, is_paced: bool) -> Self {
        Self {
            read: VecDeque::new(),
            broken: None,
            rest,
            limits,
            is_paced,
            came: 0,
            waited_since: None,
            waited: Duration::ZERO,
            wait: Wait::default(),
            wanted: None,
            transfer: Arc::default(),
        }
    }

    /// Progress of the body.
    pub(super) fn transfer(&self) -> Arc<Transfer> {
        Arc::clone(&self.transfer)
    }

    /// True if the body is known to have at most so many bytes.
    pub(super) fn is_at_most(&self, bytes: u64) -> bool {
        self.rest.size_hint().upper().is_some_and(|it| it <= bytes)
    }

    /// Reads the parts that are here or come at once.
    pub(super) async fn read_soon(&mut self) {
        while self.broken.is_none() && !self.rest.is_end_stream() {
            match soon(&mut self.rest).await {
                Some(Some(Ok(frame))) => self.read.push_back(frame),
                Some(Some(Err(error))) => self.broken = Some(error),
                Some(None) | None => return,
            }
        }
    }

    /// The body as one part, if all of it was read and is one.
    pub(super) fn whole(mut self) -> Result<Bytes, Box<Self>> {
        let is_whole = self.broken.is_none() && self.rest.is_end_stream() && self.read.len() == 1;
        let max = self.limits.body_bytes;
        let fits = |it: &Bytes| max == 0 || it.len() as u64 <= max;
        match self.read.front().and_then(Frame::data_ref).cloned() {
            Some(bytes) if is_whole && fits(&bytes) => {
                self.read.clear();
                Ok(bytes)
            }
            _ => Err(Box::new(self)),
        }
    }

    /// Lets nothing be read until this becomes true, or has had time for it.
    pub(super) fn wait_for(&mut self, mut is_wanted: watch::Receiver<bool>) {
        self.wanted = Some(Box::pin(async move {
            let wanted = is_wanted.wait_for(|is_wanted| *is_wanted);
            let _ = tokio::time::timeout(WANTED_WITHIN, wanted).await;
        }));
    }

    fn fail(&self, status: u16, code: &'static str, reason: &str) -> BodyError {
        let _ = self.transfer.fault.set(Refusal::new(status, code, reason));
        reason.to_owned().into()
    }

    /// True if the body comes more slowly than it may: of the time since its beginning only that
    /// counts in which the client was waited for.
    fn is_too_slow(&self) -> bool {
        let waited = self.waited.saturating_sub(self.limits.body_grace).as_secs_f64();
        self.is_paced
            && waited > 0.0
            && (self.came as f64) < waited * f64::from(self.limits.body_pace)
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(wanted) = &mut self.wanted {
            ready!(wanted.as_mut().poll(cx));
            self.wanted = None;
        }
        if let Some(frame) = self.read.pop_front() {
            return Poll::Ready(Some(self.count(frame)));
        }
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Some(Err(self.broke(&error))));
        }
        let now = Instant::now();
        let frame = match Pin::new(&mut self.rest).poll_frame(cx) {
            Poll::Pending => {
                let waiting = *self.waited_since.get_or_insert(now);
                let waited = self.waited + (now - waiting);
                let left = if self.is_paced && waited < self.limits.body_grace {
                    Some(now + (self.limits.body_grace - waited) + Duration::from_millis(1))
                } else {
                    None
                };
                ready!(self.wait.poll(cx, self.limits.body_idle, left));
                self.wait.end();
                self.waited += Instant::now() - waiting;
                self.waited_since = None;
                let is_idle = Instant::now() - waiting >= self.limits.body_idle;
                if !is_idle && !self.is_too_slow() {
                    return self.poll_next(cx);
                }
                let reason = "the body of the request did not come in time";
                return Poll::Ready(Some(Err(self.fail(408, "too_slow", reason))));
            }
            Poll::Ready(frame) => frame,
        };
        if let Some(waiting) = self.waited_since.take() {
            self.waited += now - waiting;
            self.wait.end();
        }
        Poll::Ready(match frame {
            None => None,
            Some(Ok(frame)) => {
                let frame = self.count(frame);
                if self.is_too_slow() {
                    let reason = "the body of the request comes too slowly";
                    return Poll::Ready(Some(Err(self.fail(408, "too_slow", reason))));
                }
                Some(frame)
            }
            Some(Err(error)) => Some(Err(self.broke(&error))),
        })
    }

    fn broke(&self, error: &hyper::Error) -> BodyError {
        let reason = format!("the body of the request did not come whole: {error}");
        self.fail(400, "malformed", &reason)
    }

    fn count(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, BodyError> {
        let now = Some(Instant::now());
        *self.transfer.moved.lock().expect("nothing under this lock can panic") = now;
        self.came += frame.data_ref().map_or(0, Bytes::len) as u64;
        let max = self.limits.body_bytes;
        if max > 0 && self.came > max {
            let reason = format!("a body has at most {max} bytes; --body-max sets it");
            return Err(self.fail(413, "body_too_long", &reason));
        }
        Ok(frame)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|it| Ok(Frame::data(it)))),
            Self::Streamed(body) => body.poll_next(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Streamed(body) => {
                body.read.is_empty() && body.broken.is_none() && body.rest.is_end_stream()
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Streamed(body) => {
                let read: usize =
                    body.read.iter().filter_map(Frame::data_ref).map(Bytes::len).sum();
                hint(read, &body.rest)
            }
        }
    }
}

/// Body of an answer on its way to the client.
pub(super) struct ResponseBody {
    kind: Kind,
    /// Line of the access log, which is written when the body is dropped.
    pub(super) line: Option<Box<AccessLine>>,
    _in_flight: InFlight,
}

enum Kind {
    Whole(Option<Bytes>),
    Streamed(Box<ServerBody>),
}

/// An answer whose head was counted.
pub(super) struct Counted {
    pub(super) meter: Arc<Meter>,
    pub(super) clock: Clock,
    pub(super) outcome: RequestOutcome,
    /// Rollout in which the request began.
    pub(super) epoch: u64,
}

impl Counted {
    /// Counts the answer as one that broke off.
    pub(super) fn broke(&self) {
        self.meter.broke(self.clock.mono(), self.outcome, self.epoch);
    }
}

/// Body that a server sends, with its time-outs.
pub(super) struct ServerBody {
    /// Part that was read already.
    pub(super) read: Option<Frame<Bytes>>,
    pub(super) rest: Incoming,
    /// Connection that it comes by; given back at its end.
    pub(super) lease: Option<Lease>,
    /// Meter of the version, the outcome that was counted, and the rollout of the request.
    pub(super) counted: Counted,
    /// Time-out between two parts.
    pub(super) idle: Duration,
    /// Moment at which the whole answer must be here, if there is one.
    pub(super) end: Option<Instant>,
    wait: Wait,
}

impl ServerBody {
    pub(super) fn new(
        (read, rest): (Option<Frame<Bytes>>, Incoming),
        lease: Lease,
        counted: Counted,
        (idle, end): (Duration, Option<Instant>),
    ) -> Self {
        Self { read, rest, lease: Some(lease), counted, idle, end, wait: Wait::default() }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = match self.read.take() {
            Some(frame) => Some(Ok(frame)),
            None => match Pin::new(&mut self.rest).poll_frame(cx) {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    ready!(self.wait.poll(cx, self.idle, self.end));
                    self.counted.broke();
                    self.lease = None;
                    return Poll::Ready(Some(Err("the server did not go on in time".into())));
                }
            },
        };
        self.wait.end();
        match frame {
            Some(Ok(frame)) => {
                self.counted.meter.sent(frame.data_ref().map_or(0, Bytes::len));
                if self.rest.is_end_stream() {
                    self.finish();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                // The client sees an answer that breaks off, as it does here.
                self.counted.broke();
                self.lease = None;
                Poll::Ready(Some(Err(error.into())))
            }
            None => {
                self.finish();
                Poll::Ready(None)
            }
        }
    }

    fn finish(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.give_back();
        }
    }
}

impl ResponseBody {
    pub(super) fn whole(bytes: Bytes, in_flight: InFlight) -> Self {
        let bytes = Some(bytes).filter(|it| !it.is_empty());
        Self { kind: Kind::Whole(bytes), line: None, _in_flight: in_flight }
    }

    pub(super) fn streamed(body: ServerBody, in_flight: InFlight) -> Self {
        Self { kind: Kind::Streamed(Box::new(body)), line: None, _in_flight: in_flight }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = match &mut self.kind {
            Kind::Whole(bytes) => bytes.take().map(|it| Ok(Frame::data(it))),
            Kind::Streamed(body) => ready!(body.poll_next(cx)),
        };
        if let (Some(line), Some(Ok(frame))) = (&mut self.line, &frame) {
            line.bytes += frame.data_ref().map_or(0, Bytes::len) as u64;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Whole(bytes) => bytes.is_none(),
            Kind::Streamed(body) => body.read.is_none() && body.rest.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Kind::Streamed(body) => {
                let read = body.read.as_ref().and_then(Frame::data_ref).map_or(0, Bytes::len);
                hint(read, &body.rest)
            }
        }
    }
}

/// Length of a body of which so many bytes were read already; known if that of the rest is.
fn hint(read: usize, rest: &Incoming) -> SizeHint {
    match rest.size_hint().exact() {
        Some(rest) => SizeHint::with_exact(rest + read as u64),
        None => SizeHint::default(),
    }
}

/// Next part of a body, if it is here or comes while the other tasks of this thread have had a turn
/// each; `None` if it is still on its way.
///
/// A small body mostly is in the same packet as its head. To wait this little for it lets both go
/// out in one write.
pub(super) async fn soon(
    body: &mut Incoming,
) -> Option<Option<Result<Frame<Bytes>, hyper::Error>>> {
    let mut turns = 0;
    std::future::poll_fn(|cx| match Pin::new(&mut *body).poll_frame(cx) {
        Poll::Ready(frame) => Poll::Ready(Some(frame)),
        Poll::Pending if turns == 2 => Poll::Ready(None),
        Poll::Pending => {
            turns += 1;
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await
}
