//! Bodies on their way through, and those of answers, from a server to a client.
//!
//! No body is held. The next part is read when the last one was taken, so the slower end sets the
//! pace, and a body of any length needs the memory of a few parts.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};

use super::access_log::AccessLine;
use super::headers::clean_trailers;
use super::meters::Meter;
use super::pool::Lease;
use crate::machine::rollout::RequestOutcome;
use crate::runtime::clock::Clock;
use crate::runtime::web::guarded::InFlight;

/// Fault of a body.
pub(super) type BodyError = Box<dyn Error + Send + Sync>;
/// Timer of a wait; it costs nothing while parts come without one.
#[derive(Debug, Default)]
pub(super) struct Wait {
    timer: Option<Pin<Box<Sleep>>>,
    is_waiting: bool,
}

impl Wait {
    /// Ends the wait: a part has come.
    pub(super) fn end(&mut self) {
        self.is_waiting = false;
    }

    /// Waits until `span` has passed since the wait began, or until `end` if that is earlier.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        span: Duration,
        end: Option<Instant>,
    ) -> Poll<()> {
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
            Some(Ok(mut frame)) => {
                if let Some(trailers) = frame.trailers_mut() {
                    clean_trailers(trailers);
                }
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
pub(super) fn hint(read: usize, rest: &impl Body) -> SizeHint {
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
pub(super) async fn soon<B: Body<Data = Bytes> + Unpin>(
    body: &mut B,
) -> Option<Option<Result<Frame<Bytes>, B::Error>>> {
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
