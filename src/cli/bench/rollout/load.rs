//! Clients that ask `/predict` again and again, each over one connection that lasts.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::cli::CliError;
use crate::model::Time;
use crate::runtime::clock::Clock;
use crate::runtime::thread;

/// A request like those of any client.
const REQUEST: &[u8] = b"POST /predict HTTP/1.1\r\nHost: localhost\r\n\
    Content-Type: application/json\r\nContent-Length: 7\r\n\r\n{\"x\":1}";

/// Longest wait for an answer before the measurement is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Settings of a load.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) addr: SocketAddr,
    /// Number of connections, each with one request on its way.
    pub(super) clients: usize,
    /// Number of threads that share them.
    pub(super) threads: usize,
    pub(super) lasts: Duration,
}

/// Results of a load.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) per_second: f64,
    /// Share of all answers that were the canary's.
    pub(super) canary_share: f64,
    /// Latency of each request in microseconds, from its last byte to the reading of its answer; a
    /// thread reads them in turn, so these are too long rather than too short.
    pub(super) latencies_us: Vec<f64>,
}

/// A load that has begun.
#[derive(Debug)]
pub(super) struct RunningLoad {
    clock: Clock,
    parts: Vec<JoinHandle<io::Result<Part>>>,
}

impl RunningLoad {
    /// Waits for its end.
    ///
    /// # Errors
    /// Fails if a request was not answered with 200.
    pub(super) fn end(self) -> Result<Outcome, CliError> {
        let mut all = Part::default();
        for part in self.parts {
            let part = part.join().expect("a client does not panic");
            let part = part.map_err(|source| CliError::System { action: "ask", source })?;
            all.latencies_us.extend(part.latencies_us);
            all.canaries += part.canaries;
        }
        let (count, took) = (all.latencies_us.len() as f64, self.clock.mono().since(Time::ZERO));
        Ok(Outcome {
            per_second: count / took.as_secs_f64(),
            canary_share: all.canaries as f64 / count.max(1.0),
            latencies_us: all.latencies_us,
        })
    }
}

/// Results of one thread.
#[derive(Debug, Default)]
struct Part {
    latencies_us: Vec<f64>,
    canaries: usize,
}

impl Load {
    /// Begins to send requests, for as long as it lasts.
    ///
    /// # Errors
    /// Fails if the system has no room for a thread.
    pub(super) fn begin(&self) -> Result<RunningLoad, CliError> {
        let clock = Clock::start();
        let threads = self.threads.min(self.clients);
        let mut parts = Vec::new();
        for number in 0..threads {
            let load = *self;
            let own = self.clients / threads + usize::from(number < self.clients % threads);
            let part = thread::spawn(format!("load:{number}"), move || load.ask(own, clock));
            let failed = |source| CliError::System { action: "start a thread", source };
            parts.push(part.map_err(failed)?);
        }
        Ok(RunningLoad { clock, parts })
    }

    fn ask(&self, clients: usize, clock: Clock) -> io::Result<Part> {
        let mut part = Part::default();
        let mut clients: Vec<_> =
            (0..clients).map(|_| Client::connect(self.addr)).collect::<Result<_, _>>()?;
        let end = Time::ZERO.after(self.lasts);
        for client in &mut clients {
            client.send(clock.mono())?;
        }
        loop {
            for client in &mut clients {
                part.canaries += usize::from(client.hear()?);
                let now = clock.mono();
                part.latencies_us.push(now.since(client.asked).as_secs_f64() * 1e6);
                if now >= end {
                    return Ok(part);
                }
                client.send(now)?;
            }
        }
    }
}

/// Sends one request over a connection of its own.
///
/// # Errors
/// Fails if it is not answered with 200.
pub(super) fn ask_once(addr: SocketAddr) -> io::Result<()> {
    let mut client = Client::connect(addr)?;
    client.send(Time::ZERO)?;
    client.hear().map(drop)
}

struct Client {
    stream: BufReader<TcpStream>,
    asked: Time,
    line: Vec<u8>,
}

impl Client {
    fn connect(addr: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream: BufReader::new(stream), asked: Time::ZERO, line: Vec::new() })
    }

    fn send(&mut self, now: Time) -> io::Result<()> {
        self.asked = now;
        self.stream.get_mut().write_all(REQUEST)
    }

    /// Reads one answer; returns whether it is the canary's.
    fn hear(&mut self) -> io::Result<bool> {
        let (mut is_canary, mut len, mut is_first) = (false, 0, true);
        loop {
            self.line.clear();
            self.stream.read_until(b'\n', &mut self.line)?;
            let line = self.line.trim_ascii_end();
            if std::mem::take(&mut is_first) && !line.starts_with(b"HTTP/1.1 200 ") {
                let text = String::from_utf8_lossy(line).into_owned();
                return Err(io::Error::other(format!("the answer is {text:?}")));
            }
            let header = |name: &str| {
                let (found, value) = line.split_at_checked(name.len())?;
                found.eq_ignore_ascii_case(name.as_bytes()).then_some(value)
            };
            if let Some(value) = header("Content-Length: ") {
                let text = std::str::from_utf8(value).unwrap_or_default();
                len = text.parse().map_err(io::Error::other)?;
            }
            is_canary |= header("X-Model: ") == Some(b"v2");
            if line.is_empty() {
                break;
            }
        }
        self.line.resize(len, 0);
        self.stream.read_exact(&mut self.line)?;
        Ok(is_canary)
    }
}
