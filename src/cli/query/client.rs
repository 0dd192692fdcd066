//! A client of the native dialect for public questions: no handshake, one question at a time; in
//! encrypted frames if there is a cluster key.

use std::io::{self, ErrorKind, Write};
use std::net::TcpStream;
use std::sync::Arc;

use crate::cli::span::Span;
use crate::model::Endpoint;
use crate::proto::line::{LineError, LineReader, encode};
use crate::proto::message::Message;
use crate::proto::refusal::{ErrorCode, ErrorReply};
use crate::proto::sealed::{self, ClusterKeys, PlainOrSealed, SealError, Sealer};

/// Largest number of pages in one answer; more than any registry has.
const PAGES_MAX: usize = 20_000;

/// Size of the read buffer, in bytes.
const READ_BUFFER_BYTES: usize = 8 * 1024;

/// Settings of calls to nodes.
#[derive(Clone, Debug)]
pub(super) struct CallOptions {
    /// Time-out of a node to connect, and to answer.
    pub(super) timeout: Span,
    /// The keys of the fleet, if it has any.
    pub(super) cluster_keys: Option<Arc<ClusterKeys>>,
}

/// A connection to a node.
pub(super) struct Client {
    to: Endpoint,
    options: CallOptions,
    stream: TcpStream,
    sealer: Option<Sealer>,
    reader: LineReader<PlainOrSealed<TcpStream>>,
}

/// One page of a long answer.
pub(super) struct Page<T> {
    /// Items on the page.
    pub(super) items: Vec<T>,
    /// Key of the next page, if there is one.
    pub(super) next: Option<Endpoint>,
}

/// Reason why a question has no answer, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// No node was reached, or the bytes that came were no answer.
    Silent(String),
    /// A node refused; the reason and its remedy.
    Refused(String),
}

impl From<&str> for Failure {
    fn from(why: &str) -> Self {
        Self::Silent(why.to_owned())
    }
}

impl From<String> for Failure {
    fn from(why: String) -> Self {
        Self::Silent(why)
    }
}

impl Failure {
    /// Failure of a refusal, with a remedy if the node's words have none.
    fn refused(error: &ErrorReply) -> Self {
        let reason = &error.reason;
        let is_no_seed = error.code == ErrorCode::WrongRole;
        let remedy = if is_no_seed { "; name a seed with --at" } else { "" };
        Self::Refused(format!("{reason}{remedy}"))
    }
}

impl Client {
    /// Connects to the node at `to`.
    ///
    /// # Errors
    /// The reason why it failed, for people.
    pub(super) fn connect(to: Endpoint, options: &CallOptions) -> Result<Self, Failure> {
        let timeout = options.timeout;
        let open = || -> io::Result<(TcpStream, TcpStream)> {
            let stream = TcpStream::connect_timeout(&to.socket_addr(), timeout.0)?;
            stream.set_read_timeout(Some(timeout.0))?;
            stream.set_write_timeout(Some(timeout.0))?;
            let _ = stream.set_nodelay(true);
            let reading = stream.try_clone()?;
            Ok((stream, reading))
        };
        let (mut stream, reading) = open().map_err(|error| io_text(&error, timeout))?;
        let sealed =
            options.cluster_keys.as_ref().map(|keys| sealed::call(&mut stream, &keys.used()));
        let sealed = sealed.transpose().map_err(|error| match error {
            SealError::Io(error) => io_text(&error, timeout).into(),
            SealError::WrongKey | SealError::Garbled => Failure::from(error.to_string()),
            SealError::Refused(error) => Failure::refused(&error),
        })?;
        let (sealer, opener) = sealed.map(|it| (it.sealer, it.opener)).unzip();
        let reader = LineReader::new(PlainOrSealed::new(reading, READ_BUFFER_BYTES, opener));
        Ok(Self { to, options: options.clone(), stream, sealer, reader })
    }

    /// Address of the node.
    pub(super) const fn to(&self) -> Endpoint {
        self.to
    }

    /// Asks one question; `pick` takes the answer out of the message that comes.
    ///
    /// # Errors
    /// The reason why there is no answer, for people.
    pub(super) fn ask<R>(
        &mut self,
        question: impl Into<Message>,
        pick: impl FnOnce(Message) -> Option<R>,
    ) -> Result<R, Failure> {
        let timeout = self.options.timeout;
        let mut line = encode(&question.into());
        if let Some(sealer) = &mut self.sealer {
            line = sealer.seal(&line);
        }
        let written = self.stream.write_all(&line);
        let answer = self.reader.read();
        // A node that has no room says so and closes, before it has read a question.
        if let (Err(error), false) = (&written, matches!(answer, Ok(Some(Message::Error(_))))) {
            return Err(io_text(error, timeout).into());
        }
        match answer {
            Ok(Some(Message::Error(error))) => Err(Failure::refused(&error)),
            Ok(Some(answer)) => {
                let name = answer.name();
                pick(answer).ok_or_else(|| format!("it answered with {name}; is it a seed?").into())
            }
            Ok(None) => Err("it closed the connection without an answer".into()),
            Err(LineError::Io(error)) => Err(io_text(&error, timeout).into()),
            Err(
                error @ (LineError::TooLong | LineError::Truncated | LineError::Malformed { .. }),
            ) => Err(format!("its answer cannot be understood: {error}").into()),
        }
    }

    /// Fetches page after page. If the connection ends between two pages, because the seed grants
    /// strangers little time, a new one goes on.
    ///
    /// # Errors
    /// The reason why the answer is not complete, for people.
    pub(super) fn fetch_all<T>(
        &mut self,
        mut page: impl FnMut(&mut Self, Option<Endpoint>) -> Result<Page<T>, Failure>,
    ) -> Result<Vec<T>, Failure> {
        let mut all = Vec::new();
        let mut after = None;
        for _ in 0..PAGES_MAX {
            let fetched = match page(self, after) {
                Err(_) if after.is_some() => {
                    *self = Self::connect(self.to, &self.options.clone())?;
                    page(self, after)?
                }
                fetched => fetched?,
            };
            all.extend(fetched.items);
            match fetched.next {
                None => return Ok(all),
                Some(next) if Some(next) <= after => {
                    return Err("it sends the same page again and again".into());
                }
                Some(next) => after = Some(next),
            }
        }
        Err(format!("its answer has more than {PAGES_MAX} pages").into())
    }
}

fn io_text(error: &io::Error, timeout: Span) -> String {
    let kind = error.kind();
    if matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut) {
        format!("no answer within {timeout}")
    } else if kind == ErrorKind::ConnectionRefused {
        "nobody listens there".to_owned()
    } else if kind == ErrorKind::UnexpectedEof {
        "it closed the connection without an answer".to_owned()
    } else {
        error.to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;
    use std::net::TcpListener;
    use std::time::Duration;

    use super::*;
    use crate::model::SeedId;
    use crate::proto::membership::{PeerListReq, PeerListResp};
    use crate::proto::refusal::{ErrorCode, ErrorReply};
    use crate::runtime::thread;

    /// A seed that has one answer for each connection, in order.
    fn seed(answers: Vec<Option<Message>>) -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = Endpoint::from(listener.local_addr().unwrap());
        thread::spawn("seed", move || {
            for answer in answers {
                let (stream, _) = listener.accept().unwrap();
                let mut reader = LineReader::new(BufReader::new(stream.try_clone().unwrap()));
                while let Ok(Some(_)) = reader.read() {
                    match &answer {
                        Some(answer) => (&stream).write_all(&encode(answer)).unwrap(),
                        None => break,
                    }
                }
            }
        })
        .unwrap();
        endpoint
    }

    fn options() -> CallOptions {
        CallOptions { timeout: Span(Duration::from_secs(20)), cluster_keys: None }
    }

    fn ask(endpoint: Endpoint) -> Result<PeerListResp, Failure> {
        let mut client = Client::connect(endpoint, &options())?;
        client.ask(PeerListReq::default(), |answer| {
            if let Message::PeerListResp(list) = answer { Some(list) } else { None }
        })
    }

    fn text(failure: Failure) -> String {
        let (Failure::Silent(text) | Failure::Refused(text)) = failure;
        text
    }

    #[test]
    fn the_answer_or_the_reason_comes_back() {
        let list = PeerListResp { seed: SeedId(1), members: Vec::new(), more: false };
        assert_eq!(ask(seed(vec![Some(list.clone().into())])), Ok(list));
        let refusal = ErrorReply::new(ErrorCode::WrongRole, "ask a seed");
        let failure = ask(seed(vec![Some(refusal.into())])).unwrap_err();
        assert_eq!(failure, Failure::Refused("ask a seed; name a seed with --at".to_owned()));
        let failure = ask(seed(vec![Some(PeerListReq::default().into())])).unwrap_err();
        assert!(text(failure).contains("PEER_LIST_REQ"));
        assert!(ask(seed(vec![None])).is_err());
    }

    #[test]
    fn a_node_that_has_no_room_and_hangs_up_at_once_is_heard() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = Endpoint::from(listener.local_addr().unwrap());
        let mut client = Client::connect(endpoint, &options()).unwrap();
        let (mut full, _) = listener.accept().unwrap();
        let busy = ErrorReply::new(ErrorCode::Busy, "no room; try again");
        full.write_all(&encode(&busy.into())).unwrap();
        full.shutdown(std::net::Shutdown::Both).unwrap();
        drop(full);
        let refused = || Err(Failure::Refused("no room; try again".to_owned()));
        let ask = |client: &mut Client| {
            client.ask(PeerListReq::default(), |answer| {
                if let Message::PeerListResp(list) = answer { Some(list) } else { None }
            })
        };
        assert_eq!(ask(&mut client), refused());
    }

    #[test]
    fn nobody_there_is_told_plainly() {
        let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let text = text(ask(Endpoint::from(gone)).unwrap_err());
        assert!(text.starts_with("nobody listens"), "{text}");
    }

    #[test]
    fn pages_are_fetched_to_the_end_even_over_several_connections() {
        let endpoint = seed(vec![None, None]);
        let at = |port| Endpoint::new([127, 0, 0, 1].into(), port);
        let mut client = Client::connect(endpoint, &options()).unwrap();
        let mut calls = 0;
        let all = client.fetch_all(|_, after| {
            calls += 1;
            match (calls, after) {
                (1, None) => Ok(Page { items: vec![1, 2], next: Some(at(2)) }),
                (2, _) => Err("it closed the connection".into()),
                (_, after) => {
                    assert_eq!(after, Some(at(2)), "it goes on where it was");
                    Ok(Page { items: vec![3], next: None })
                }
            }
        });
        assert_eq!(all, Ok(vec![1, 2, 3]));
        let mut stuck = Client::connect(endpoint, &options()).unwrap();
        let same = |_: &mut Client, _| Ok(Page { items: vec![1], next: Some(at(2)) });
        assert!(text(stuck.fetch_all(same).unwrap_err()).contains("same page"));
    }
}
