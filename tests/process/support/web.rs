//! HTTP for tests of the data plane: servers and a client that a test writes, other people's
//! programs if they are installed, and a node in front of a server.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread::JoinHandle;

use folkmoot::runtime::thread::spawn;
use sha2::{Digest as _, Sha256};

use super::nodes::http;
use super::process::{Process, eventually, run};
use super::{PATIENCE, peer_exe, ports, words};

/// Bytes of one block of [`block`].
pub const BLOCK: usize = 64 * 1024;

/// The headers of a message, with names in small letters; of equal names the last.
pub type Headers = BTreeMap<String, String>;

/// The head of a request.
#[derive(Debug)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub headers: Headers,
}

/// The head of an answer, and its body.
#[derive(Debug, Default)]
pub struct Answer {
    pub status: u16,
    pub headers: Headers,
    pub body: Vec<u8>,
}

/// One end of a connection.
pub struct Connection(BufReader<TcpStream>);

impl Connection {
    fn over(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Connects as a client.
    #[track_caller]
    pub fn call(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&addr, PATIENCE).expect("it listens");
        Self::over(stream).expect("a socket takes options")
    }

    pub fn write(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.0.get_mut().write_all(bytes.as_ref())
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }

    fn headers(&mut self) -> io::Result<Headers> {
        let mut headers = Headers::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(headers);
            }
            let (name, value) = line.split_once(':').ok_or(io::ErrorKind::InvalidData)?;
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
    }

    fn request(&mut self) -> io::Result<Request> {
        let line = self.line()?;
        let mut words = line.split(' ').map(str::to_owned);
        let (method, target) = (words.next(), words.next());
        let (method, target) = method.zip(target).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Request { method, target, headers: self.headers()? })
    }

    /// Takes exactly `len` bytes, in pieces.
    pub fn take(&mut self, len: u64, mut take: impl FnMut(&[u8])) -> io::Result<()> {
        let mut left = len;
        while left > 0 {
            let piece = match self.0.fill_buf() {
                // A child of another test has ended.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                piece => piece?,
            };
            if piece.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let len = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            take(&piece[..len]);
            self.0.consume(len);
            left -= len as u64;
        }
        Ok(())
    }

    /// Takes a body in pieces, as the headers before it say; returns the trailers.
    pub fn body(&mut self, headers: &Headers, mut take: impl FnMut(&[u8])) -> io::Result<Headers> {
        if headers.get("transfer-encoding").is_none_or(|it| it != "chunked") {
            let len = headers.get("content-length").map_or(Ok(0), |it| it.parse());
            self.take(len.map_err(io::Error::other)?, take)?;
            return Ok(Headers::new());
        }
        while self.chunk(&mut take)? {}
        self.headers()
    }

    /// Takes the next chunk of a body; false if it is the last, before the trailers.
    pub fn chunk(&mut self, take: impl FnMut(&[u8])) -> io::Result<bool> {
        let len = u64::from_str_radix(&self.line()?, 16).map_err(io::Error::other)?;
        if len == 0 {
            return Ok(false);
        }
        self.take(len, take)?;
        self.line()?;
        Ok(true)
    }

    /// Sends a request with a body of known length.
    #[track_caller]
    pub fn send(&mut self, method: &str, target: &str, body: &[u8]) {
        let len = body.len();
        let head =
            format!("{method} {target} HTTP/1.1\r\nHost: node\r\nContent-Length: {len}\r\n\r\n");
        self.write([head.as_bytes(), body].concat()).expect("it reads");
    }

    /// The head of the next answer.
    #[track_caller]
    pub fn head(&mut self) -> Answer {
        let line = self.line().expect("an answer");
        let status = line.split(' ').nth(1).and_then(|it| it.parse().ok());
        let headers = self.headers().expect("headers");
        Answer { status: status.expect("a status"), headers, body: Vec::new() }
    }

    /// One request and its whole answer.
    #[track_caller]
    pub fn ask(&mut self, method: &str, target: &str, body: &[u8]) -> Answer {
        self.send(method, target, body);
        let mut answer = self.head();
        let mut whole = Vec::new();
        self.body(&answer.headers, |it| whole.extend_from_slice(it)).expect("a body");
        answer.body = whole;
        answer
    }

    /// Answers a request with a body of known length.
    pub fn answer(&mut self, status: &str, headers: &str, body: &[u8]) -> io::Result<()> {
        let len = body.len();
        let head = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {len}\r\n\r\n");
        self.write([head.as_bytes(), body].concat())
    }
}

/// Answers one request; after an error the connection is closed.
type Answering = dyn Fn(&Request, &mut Connection) -> io::Result<()> + Send + Sync;

/// A server that a test writes: a thread for each connection.
pub struct Server {
    pub addr: SocketAddr,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start(
        answer: impl Fn(&Request, &mut Connection) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self::start_at("127.0.0.1:0", answer)
    }

    pub fn start_at(
        addr: &str,
        answer: impl Fn(&Request, &mut Connection) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let answer: Arc<Answering> = Arc::new(answer);
        Self::of_connections(addr, move |stream| {
            let Ok(mut connection) = Connection::over(stream) else { return };
            while let Ok(request) = connection.request() {
                if answer(&request, &mut connection).is_err() {
                    return;
                }
            }
        })
    }

    /// A server that does as it likes with each connection.
    pub fn of_connections(addr: &str, serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(addr).expect("there is a free port");
        let addr = listener.local_addr().expect("it has an address");
        let (is_over, serve) = (Arc::<AtomicBool>::default(), Arc::new(serve));
        let over = Arc::clone(&is_over);
        let listen = move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let serve = Arc::clone(&serve);
                spawn("web-server", move || serve(stream)).expect("there is room");
            }
        };
        let thread = Some(spawn("web-port", listen).expect("there is room"));
        Self { addr, is_over, thread }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.addr);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// A node alone whose two versions are both answered by one server.
pub struct Front {
    pub addr: SocketAddr,
    pub process: Process,
    dir: tempfile::TempDir,
}

impl Front {
    /// Starts it in front of a server.
    #[track_caller]
    pub fn of(server: SocketAddr) -> Self {
        Self::at(Ipv4Addr::LOCALHOST.into(), server)
    }

    /// Starts it with its data plane at an address of this machine.
    #[track_caller]
    pub fn at(ip: IpAddr, server: SocketAddr) -> Self {
        let dir = tempfile::tempdir().expect("there is room");
        let any = SocketAddr::new(ip, 0);
        let [v1, v2] = ["v1", "v2"].map(|it| format!("--serve {it}=http://{server}"));
        let line = format!("--port {} --id node-a --http {any} {v1} {v2}", ports());
        let line = words(&line);
        let args: Vec<_> = line.iter().map(String::as_str).collect();
        let process = Process::start(&peer_exe(), &args, dir.path());
        // The system chose the port, so that nobody else answers there.
        process.wait_for("data plane at http://");
        let out = process.out();
        let (_, addr) = out.split_once("data plane at http://").expect("it was printed");
        let addr = addr.split(' ').next().and_then(|it| it.parse::<SocketAddr>().ok());
        let addr = addr.expect("an address");
        let serves = || {
            let routing = http((&ip.to_string(), addr.port()), "GET", "/routing", "");
            routing.is_ok_and(|(status, _)| status == 200)
        };
        assert!(eventually(serves), "{}\n{}", process.out(), process.err());
        Self { addr, process, dir }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    /// A folder for files of the test.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

/// Path of an installed program; without it the test is skipped, and says so.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
    let runs = |it: &PathBuf| {
        let mut command = Command::new(it);
        command.arg("-h").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok()
    };
    let found = folders.map(|it| it.join(name)).find(runs);
    if found.is_none() {
        let test = std::thread::current();
        let test = test.name().unwrap_or("a test");
        let _ = writeln!(io::stderr(), "{test}: skipped, because {name} is not installed");
    }
    found
}

/// Runs curl to its end: its exit code, and what it printed.
#[track_caller]
pub fn curl(exe: &Path, front: &Front, args: &[&str]) -> (Option<i32>, String, String) {
    // Of a user's own settings and proxies nothing is taken.
    let always = ["-q", "-sS", "--noproxy", "*", "--max-time", "50"];
    run(exe, &[&always[..], args].concat(), front.dir())
}

/// Block `number` of a content without repetition.
pub fn block(number: u64) -> Vec<u8> {
    static PATTERN: LazyLock<Vec<u8>> =
        LazyLock::new(|| (0..BLOCK).map(|it| (it * 31 + it / 251) as u8).collect());
    let mut block = PATTERN.clone();
    block[..8].copy_from_slice(&number.to_be_bytes());
    block
}

/// SHA-256 of the first blocks, in hexadecimal digits.
pub fn sha_of_blocks(count: u64) -> String {
    let mut hash = Sha256::new();
    (0..count).for_each(|it| hash.update(block(it)));
    hex::encode(hash.finalize())
}

/// A field of the kernel's account of a process, in KiB, as in `VmRSS`.
#[track_caller]
pub fn memory(process: &Process, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid()));
    let status = status.expect("it runs");
    let line = status.lines().find_map(|it| it.strip_prefix(field)).expect("the field exists");
    line.trim_matches(|it: char| !it.is_ascii_digit()).parse().expect("a number")
}
