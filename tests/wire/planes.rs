//! Data planes, clients and servers for tests.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use folkmoot::machine::rollout::ServedState;
use folkmoot::proto::rollout::{RoutingState, Sticky, Weights};
use folkmoot::runtime::dataplane::{DataPlane, DataPlaneLimits, DataPlaneOptions, ProxyOptions};
use folkmoot::runtime::thread;
use serde_json::Value;

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn spawn<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    thread::spawn("test", f).expect("a thread starts")
}

pub(crate) fn options(limits: DataPlaneLimits, upstreams: &[(&str, String)]) -> DataPlaneOptions {
    let servers = |(model, url): &(&str, String)| (model.parse().unwrap(), url.parse().unwrap());
    DataPlaneOptions {
        listen: "127.0.0.1:0".parse().unwrap(),
        node_id: "node-a".parse().unwrap(),
        servers: upstreams.iter().map(servers).collect(),
        limits: DataPlaneLimits { grace: Duration::from_millis(500), ..limits },
        seed: 1,
        more_metrics: None,
        proxy: ProxyOptions::default(),
    }
}

/// Version `version`, with that share in basis points for the canary.
pub(crate) fn serving(version: u64, share: u32, sticky: Option<Sticky>) -> Arc<ServedState> {
    let mut state = RoutingState::initial("v1".parse().unwrap(), "v2".parse().unwrap());
    state.version = version;
    state.weights = Weights::split(&state.stable_model_id, &state.canary_model_id, share);
    Arc::new(ServedState {
        salt: 7,
        sticky,
        window: Some(Duration::from_secs(600)),
        ..ServedState::new(state)
    })
}

pub(crate) fn plane_with(
    limits: DataPlaneLimits,
    upstreams: &[(&str, String)],
    share: u32,
) -> DataPlane {
    let plane = DataPlane::start(options(limits, upstreams)).unwrap();
    plane.set(serving(1, share, None));
    plane
}

pub(crate) fn plane(share: u32) -> DataPlane {
    plane_with(DataPlaneLimits::default(), &[], share)
}

/// Limits that run out at once where a test waits for that.
pub(crate) fn hasty() -> DataPlaneLimits {
    DataPlaneLimits {
        head: Duration::from_millis(200),
        body_idle: Duration::from_millis(200),
        first_byte: Duration::from_secs(1),
        connect: Duration::from_secs(1),
        ..DataPlaneLimits::default()
    }
}

/// One client's connection.
pub(crate) struct Client(pub(crate) BufReader<TcpStream>);

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name} in {self:?}"))
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

impl Client {
    pub(crate) fn call(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(BufReader::new(stream))
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).unwrap();
    }

    #[track_caller]
    pub(crate) fn hear(&mut self) -> Answer {
        self.try_hear(true).expect("an answer")
    }

    pub(crate) fn hear_head(&mut self) -> Answer {
        self.try_hear(false).expect("an answer")
    }

    pub(crate) fn try_hear(&mut self, has_body: bool) -> std::io::Result<Answer> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let status = lines[0].split(' ').nth(1).unwrap().parse().unwrap();
        let header = |line: &String| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_ascii_lowercase(), value.to_owned())
        };
        let headers: BTreeMap<_, _> = lines[1..].iter().map(header).collect();
        let mut body = Vec::new();
        let says = |name: &str, value: &str| headers.get(name).is_some_and(|it| it == value);
        let has_none = !has_body || [204, 304].contains(&status) || status < 200;
        if has_none {
        } else if says("transfer-encoding", "chunked") {
            body = self.hear_chunks()?;
        } else if let Some(len) = headers.get("content-length") {
            body = vec![0; len.parse().unwrap()];
            self.0.read_exact(&mut body)?;
        } else {
            self.0.read_to_end(&mut body)?;
        }
        Ok(Answer { status, headers, body })
    }

    fn hear_chunks(&mut self) -> std::io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            let size = usize::from_str_radix(line.trim(), 16).unwrap();
            let mut chunk = vec![0; size + 2];
            self.0.read_exact(&mut chunk)?;
            body.extend_from_slice(&chunk[..size]);
            if size == 0 {
                return Ok(body);
            }
        }
    }

    /// True if the other end has closed, as soon as that can be known.
    pub(crate) fn is_over(&mut self) -> bool {
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).is_ok() && rest.is_empty()
    }

    #[track_caller]
    pub(crate) fn predict(&mut self, headers: &str, body: &str) -> Answer {
        self.send(post(headers, body).as_bytes());
        self.hear()
    }

    #[track_caller]
    pub(crate) fn get(&mut self, path: &str) -> Answer {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        self.hear()
    }
}

pub(crate) fn post(headers: &str, body: &str) -> String {
    let len = body.len();
    format!("POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: {len}\r\n{headers}\r\n{body}")
}

/// Handler of a server's connection, told its number.
pub(crate) type Manner = dyn Fn(usize, &mut BufReader<TcpStream>) + Send + Sync;

/// A server that a test wrote.
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    pub(crate) connections: Arc<AtomicUsize>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(manner: Box<Manner>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (connections, is_over) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let (count, over, manner) = (connections.clone(), is_over.clone(), Arc::new(manner));
        let thread = spawn(move || {
            for stream in listener.incoming() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let number = count.fetch_add(1, Ordering::SeqCst);
                let manner = manner.clone();
                spawn(move || manner(number, &mut BufReader::new(stream.unwrap())));
            }
        });
        Self { addr, connections, is_over, thread: Some(thread) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.addr);
        let _ = self.thread.take().unwrap().join();
    }
}

/// One request, head and body, which comes whole or in chunks; none at the end.
pub(crate) fn request(stream: &mut BufReader<TcpStream>) -> Option<String> {
    let line = |stream: &mut BufReader<TcpStream>| {
        let mut line = String::new();
        (stream.read_line(&mut line).ok()? > 0).then_some(line)
    };
    let (mut head, mut len, mut is_chunked) = (String::new(), 0, false);
    loop {
        let line = line(stream)?;
        if let Some(value) = line.strip_prefix("Content-Length: ") {
            len = value.trim().parse().unwrap();
        }
        is_chunked |= line == "Transfer-Encoding: chunked\r\n";
        head.push_str(&line);
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; len];
    stream.read_exact(&mut body).ok()?;
    if is_chunked {
        loop {
            let size = usize::from_str_radix(line(stream)?.trim(), 16).ok()?;
            let mut chunk = vec![0; size];
            stream.read_exact(&mut chunk).ok()?;
            body.extend(chunk);
            // The line's end behind a chunk, or the blank line behind the trailers.
            while line(stream)? != "\r\n" {}
            if size == 0 {
                break;
            }
        }
    }
    Some(head + &String::from_utf8_lossy(&body))
}

pub(crate) fn say(stream: &mut BufReader<TcpStream>, text: &str) {
    let _ = stream.get_mut().write_all(text.as_bytes());
}

pub(crate) const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Answers every request with the same.
pub(crate) fn saying(text: &'static str) -> Server {
    Server::start(Box::new(move |_, stream| {
        while request(stream).is_some() {
            say(stream, text);
        }
    }))
}
