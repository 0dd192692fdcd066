//! Bodies of requests, from a client to a server.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::sync::watch;
use tokio::time::Instant;

use super::body::{BodyError, Wait, hint, soon};
use super::headers::clean_trailers;
use super::limits::DataPlaneLimits;
use crate::runtime::web::guarded::{DISCARDED_MAX, LINGER};
use crate::runtime::web::refusal::Refusal;

/// Time after which a body is sent although its server has not said that it wants it.
const WANTED_WITHIN: Duration = Duration::from_secs(1);
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

/// Part of a client's body that is not read yet.
///
/// The rest of an HTTP/2 body is read for a moment after the drop. A server may answer before the
/// frame that ends the body has come, and some clients, as curl 7.88, take the reset of a stream
/// that they have not ended for a fault.
struct Rest {
    body: Option<Incoming>,
    is_http2: bool,
}

impl Body for Rest {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.body.as_mut().map_or(Poll::Ready(None), |it| Pin::new(it).poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        if self.is_http2
            && let Some(mut body) = self.body.take()
            && !body.is_end_stream()
        {
            tokio::spawn(tokio::time::timeout(LINGER, async move {
                let mut left = DISCARDED_MAX;
                while let Some(Ok(frame)) = body.frame().await {
                    let Some(rest) = left.checked_sub(frame.data_ref().map_or(0, Bytes::len))
                    else {
                        return;
                    };
                    left = rest;
                }
            }));
        }
    }
}

/// Body that a client sends, with limits.
pub(super) struct ClientBody {
    /// Parts that were read already.
    read: VecDeque<Frame<Bytes>>,
    /// Fault behind these parts.
    broken: Option<hyper::Error>,
    rest: Rest,
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
    pub(super) fn new(body: Incoming, limits: DataPlaneLimits, is_http2: bool) -> Self {
        Self {
            read: VecDeque::new(),
            broken: None,
            rest: Rest { body: Some(body), is_http2 },
            limits,
            is_paced: !is_http2,
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
            let wanted = async {
                if is_wanted.wait_for(|is_wanted| *is_wanted).await.is_err() {
                    // The server has answered without it.
                    std::future::pending::<()>().await;
                }
            };
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

    fn count(&mut self, mut frame: Frame<Bytes>) -> Result<Frame<Bytes>, BodyError> {
        if let Some(trailers) = frame.trailers_mut() {
            clean_trailers(trailers);
        }
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
