//! Local commands: a Unix socket in the data directory, one line in, one line or many out.
//!
//! Only the owner of the data directory can reach it: the socket's mode is 0600 before it appears
//! under its name. The meaning of the lines is the handler's business. A request costs one thread
//! for a bounded time, and there is a bound to their number; the node's port is not involved.

use std::fs::{File, Permissions};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded, select};
use socket2::SockRef;

use super::clock::Clock;
use super::files::{DataDir, sync_dir};
use super::thread::{self, ThreadGroup};
use crate::machine::Never;

/// Longest request in bytes, its newline included: the largest message (16 MiB) as text.
pub const REQUEST_BYTES_MAX: usize = 24 * 1024 * 1024;

/// Longest answer in bytes, its newline included: a registry of ten thousand fits.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Largest number of requests served at a time; others wait for their turn.
const REQUESTS_MAX: usize = 16;

/// Time-out of a client for sending its request, and for taking each part of its answer.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(10);

/// Interval of the checks whether the node stops, while the reader of a long answer stands still.
const LOOK: Duration = Duration::from_secs(1);

/// Pause after a failure to accept that would at once repeat itself.
const BACKOFF: Duration = Duration::from_millis(100);

/// Largest number of answers in many lines at a time; each may last for days.
const STREAMS_MAX: usize = 64;

/// Longest wait of a server that stops for answers under way. Answers that are not finished then
/// are cut short.
const ANSWER_GRACE: Duration = Duration::from_secs(1);

/// Function that answers a request. No line has its newline.
pub type ControlHandler = Arc<dyn Fn(&str) -> ControlAnswer + Send + Sync>;

/// Answer to a request.
pub enum ControlAnswer {
    /// One line is the whole answer.
    Line(String),
    /// Lines follow as they come. Dropped when the client has gone.
    Lines(Box<dyn FnMut() -> NextLine + Send>),
}

/// Next part of an answer of many lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextLine {
    /// The next line of the answer.
    Line(String),
    /// Nothing for now. To be returned at least every few seconds, because it tests whether the
    /// client is there: an empty line is written.
    Idle,
    /// The end of the answer.
    End,
}

/// Server of local commands; stops, and removes its socket, when dropped.
///
/// A request that came before gets its answer, if that takes no more than a second; answers of many
/// lines should have been made to end.
#[derive(Debug)]
pub struct Control {
    path: PathBuf,
    listener: Arc<UnixListener>,
    /// Sender whose drop is the acceptor's sign to stop.
    open: Option<Sender<Never>>,
    acceptor: Option<std::thread::JoinHandle<()>>,
    /// Threads that answer requests.
    answering: ThreadGroup,
}

/// Serves local commands at [`DataDir::control_path`] of `dir`.
///
/// A socket that a crash left there is replaced: its server is gone, since this process holds the
/// directory's lock. `dir` must outlive the server.
///
/// # Errors
///
/// Fails if the socket cannot be made; outside Linux a path of more than about 100 bytes is too
/// long.
pub fn serve(dir: &DataDir, handler: ControlHandler) -> io::Result<Control> {
    serve_at(dir.control_path(), handler)
}

/// Serves local commands at `path`, which no other server uses while this process lives, in a
/// directory that only its owner can reach.
///
/// # Errors
///
/// As [`serve`].
pub fn serve_at(path: PathBuf, handler: ControlHandler) -> io::Result<Control> {
    let listener =
        Arc::new(listen(&path).map_err(|err| at(&path, "serve local commands at", &err))?);
    let (open, stopping) = bounded(0);
    let accepting = Arc::clone(&listener);
    let answering = ThreadGroup::default();
    let serving = ClientCount { answering: answering.clone(), ..ClientCount::default() };
    let acceptor = thread::spawn("control", move || {
        accept_loop(&accepting, &stopping, &handler, serving);
    })?;
    Ok(Control { path, listener, open: Some(open), acceptor: Some(acceptor), answering })
}

impl Drop for Control {
    fn drop(&mut self) {
        self.open = None;
        // On Linux this wakes the acceptor; elsewhere it fails, and a call to oneself does.
        if SockRef::from(&*self.listener).shutdown(Shutdown::Both).is_err() {
            let _ = connect(&self.path);
        }
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        // The process ends next: an answer that is being made would be cut short.
        let clock = Clock::start();
        let left = self.answering.wait(&clock, clock.now().mono.after(ANSWER_GRACE));
        if left > 0 {
            log::debug!("{left} local commands went unanswered");
        }
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Sends `request` to the node that serves `path` and returns its answer, both without newline.
///
/// # Errors
///
/// Fails if no node serves `path`, or no answer comes within `timeout`. [`may_be_done`] tells
/// whether the node may have carried out the request all the same.
pub fn ask(path: &Path, request: &str, timeout: Duration) -> io::Result<String> {
    exchange(path, request, timeout).map_err(|err| at(path, "ask the node at", &err))
}

/// True if an error of [`ask`] leaves the outcome of the request open.
pub fn may_be_done(err: &io::Error) -> bool {
    matches!(
        err.kind(),
        ErrorKind::UnexpectedEof
            | ErrorKind::ConnectionReset
            | ErrorKind::WouldBlock
            | ErrorKind::TimedOut
    )
}

fn exchange(path: &Path, request: &str, timeout: Duration) -> io::Result<String> {
    read_line(&put(path, request, timeout)?, ANSWER_BYTES_MAX)
}

/// Sends `request` to the node that serves `path` and passes each line of its answer to `take`,
/// until that returns false or the answer ends.
///
/// # Errors
///
/// Fails if no node serves `path`, the node has given no sign of life for `timeout`, or it gives as
/// many long answers as it can.
pub fn follow(
    path: &Path,
    request: &str,
    timeout: Duration,
    mut take: impl FnMut(&str) -> bool,
) -> io::Result<()> {
    let mut follow = || {
        let mut lines = BufReader::new(put(path, request, timeout)?);
        let mut line = String::new();
        let mut is_answered = false;
        loop {
            line.clear();
            let len = (&mut lines).take(ANSWER_BYTES_MAX as u64).read_line(&mut line)?;
            match line.strip_suffix('\n') {
                Some("") => {}
                Some(line) if take(line) => {}
                Some(_) => return Ok(()),
                None if len == 0 && is_answered => return Ok(()),
                None if len == 0 => return Err(not_taken()),
                None => return Err(io::Error::new(ErrorKind::UnexpectedEof, "cut short")),
            }
            is_answered = true;
        }
    };
    follow().map_err(|err| at(path, "follow the node at", &err))
}

/// True if a node serves `path`: one that was killed leaves its socket behind.
pub fn is_served(path: &Path) -> bool {
    connect(path).is_ok()
}

/// Longest path of a socket in bytes, on every system.
const SOCKET_PATH_BYTES_MAX: usize = 100;

/// Does `work` with a name of the socket `path` that is short enough. On Linux a longer path has a
/// short name by way of the open directory; elsewhere it is refused.
fn with_short_name<T>(path: &Path, work: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else { return work(path) };
    if path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
        return work(path);
    }
    let dir = File::open(dir)?;
    let by_dir = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()));
    // Without such a file system, the error names the path that was given.
    if by_dir.is_dir() { work(&by_dir.join(name)) } else { work(path) }
}

fn connect(path: &Path) -> io::Result<UnixStream> {
    with_short_name(path, |path| UnixStream::connect(path))
}

fn put(path: &Path, request: &str, timeout: Duration) -> io::Result<UnixStream> {
    let mut stream = connect(path)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    let written = stream.write_all(format!("{request}\n").as_bytes());
    // The request was not taken: not to be confused with a reader of our output that has gone.
    if written.as_ref().is_err_and(|err| err.kind() == ErrorKind::BrokenPipe) {
        return Err(not_taken());
    }
    written?;
    Ok(stream)
}

fn not_taken() -> io::Error {
    io::Error::other("it does not take the command now; try again")
}

/// The error `err` with the attempted action and its path.
fn at(path: &Path, action: &str, err: &io::Error) -> io::Error {
    let kind = err.kind();
    let text = if matches!(kind, ErrorKind::NotFound | ErrorKind::ConnectionRefused) {
        "no node is running there".into()
    } else if matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut) {
        "no answer came in time".into()
    } else if matches!(kind, ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) {
        "it ended before it answered".into()
    } else if kind == ErrorKind::InvalidInput {
        "its path is too long for a socket; name a shorter directory with --data".into()
    } else {
        err.to_string()
    };
    io::Error::new(kind, format!("cannot {action} {}: {text}", path.display()))
}

/// Makes the socket under a draft name, restricts it, and only then gives it its name.
fn listen(path: &Path) -> io::Result<UnixListener> {
    let draft = path.with_extension("new");
    match std::fs::remove_file(&draft) {
        Err(err) if err.kind() != ErrorKind::NotFound => return Err(err),
        Ok(()) | Err(_) => {}
    }
    let listener = with_short_name(&draft, |draft| UnixListener::bind(draft))?;
    std::fs::set_permissions(&draft, Permissions::from_mode(0o600))?;
    std::fs::rename(&draft, path)?;
    path.parent().map_or(Ok(()), sync_dir)?;
    Ok(listener)
}

fn accept_loop(
    listener: &UnixListener,
    stopping: &Receiver<Never>,
    handler: &ControlHandler,
    serving: ClientCount,
) {
    let serving = Arc::new(serving);
    loop {
        let accepted = listener.accept();
        if stopping.try_recv() == Err(TryRecvError::Disconnected) {
            return;
        }
        match accepted {
            Ok((stream, _)) => {
                // Requests that come meanwhile wait in the system's queue.
                select! {
                    send(serving.requests.0, ()) -> _ => {}
                    recv(stopping) -> _ => return,
                }
                let place = ClientPermit(serving.requests.1.clone());
                start_answer(stream, place, (&serving, handler), stopping);
            }
            Err(err) if err.kind() == ErrorKind::Interrupted => {}
            Err(err) => {
                log::warn!("cannot accept local commands: {err}");
                if stopping.recv_timeout(BACKOFF) == Err(RecvTimeoutError::Disconnected) {
                    return;
                }
            }
        }
    }
}

/// Limited places: taken by sending, given back by receiving.
type ClientPermits = (Sender<()>, Receiver<()>);

/// Requests and answers that are being served now.
struct ClientCount {
    requests: ClientPermits,
    streams: ClientPermits,
    /// Threads whose request was read.
    answering: ThreadGroup,
}

impl Default for ClientCount {
    fn default() -> Self {
        let (requests, streams) = (bounded(REQUESTS_MAX), bounded(STREAMS_MAX));
        Self { requests, streams, answering: ThreadGroup::default() }
    }
}

/// Answers a client on a thread of its own; closes the connection if there is no room for one.
fn start_answer(
    stream: UnixStream,
    place: ClientPermit,
    (serving, handler): (&Arc<ClientCount>, &ControlHandler),
    stopping: &Receiver<Never>,
) {
    let (handler, serving) = (Arc::clone(handler), Arc::clone(serving));
    let stopping = stopping.clone();
    let spawned = thread::spawn("command", move || {
        if let Err(err) = answer(&stream, place, &serving, &handler, &stopping) {
            log::debug!("a local command went unanswered: {err}");
        }
    });
    if let Err(err) = spawned {
        log::warn!("refused a local command: {err}");
    }
}

/// A place in use, given back when dropped.
struct ClientPermit(Receiver<()>);

impl Drop for ClientPermit {
    fn drop(&mut self) {
        let _ = self.0.try_recv();
    }
}

fn answer(
    mut stream: &UnixStream,
    place: ClientPermit,
    serving: &ClientCount,
    handler: &ControlHandler,
    stopping: &Receiver<Never>,
) -> io::Result<()> {
    stream.set_read_timeout(Some(CLIENT_TIMEOUT))?;
    stream.set_write_timeout(Some(CLIENT_TIMEOUT))?;
    let request = read_line(stream, REQUEST_BYTES_MAX)?;
    // From here on: a client that sends nothing holds up no stop.
    let _at_work = serving.answering.join();
    let mut next = match handler(&request) {
        ControlAnswer::Line(line) => return write_line(stream, line),
        ControlAnswer::Lines(next) => next,
    };
    // The answer may last: other clients must be able to ask meanwhile.
    drop(place);
    if serving.streams.0.try_send(()).is_err() {
        log::warn!("refused a local command: {STREAMS_MAX} long answers are being given");
        return Ok(());
    }
    let _place = ClientPermit(serving.streams.1.clone());
    // A reader that stands still is not one that has gone.
    stream.set_write_timeout(Some(LOOK))?;
    loop {
        let mut line = match next() {
            NextLine::Line(line) => line,
            NextLine::Idle => String::new(),
            NextLine::End => return Ok(()),
        };
        line.push('\n');
        let mut rest = line.as_bytes();
        while !rest.is_empty() {
            match stream.write(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => rest = &rest[count..],
                Err(err) if err.kind() == ErrorKind::WouldBlock => {
                    if stopping.try_recv() == Err(TryRecvError::Disconnected) {
                        return Err(err);
                    }
                }
                Err(err) if err.kind() == ErrorKind::Interrupted => {}
                Err(err) => return Err(err),
            }
        }
    }
}

fn write_line(mut stream: &UnixStream, mut line: String) -> io::Result<()> {
    debug_assert!(!line.contains('\n'), "an answer's line is one line");
    line.push('\n');
    stream.write_all(line.as_bytes())
}

/// Reads one line of at most `max` bytes, and returns it without its newline.
fn read_line(stream: &UnixStream, max: usize) -> io::Result<String> {
    let mut line = String::new();
    BufReader::new(stream.take(max as u64)).read_line(&mut line)?;
    if line.pop() == Some('\n') {
        return Ok(line);
    }
    Err(if line.len() + 1 >= max {
        io::Error::new(ErrorKind::InvalidData, "the line is too long")
    } else {
        io::Error::new(ErrorKind::UnexpectedEof, "the line is cut short")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn data_dir() -> (tempfile::TempDir, DataDir) {
        let root = tempfile::tempdir().unwrap();
        let dir = DataDir::open(root.path(), "peer", 1).unwrap();
        (root, dir)
    }

    fn shout() -> ControlHandler {
        Arc::new(|request| ControlAnswer::Line(request.to_uppercase()))
    }

    #[test]
    fn a_request_is_answered_and_the_socket_is_private() {
        let (_root, dir) = data_dir();
        let control = serve(&dir, shout()).unwrap();
        let path = dir.control_path();
        assert_eq!(ask(&path, r#"{"ask":"x"}"#, PATIENCE).unwrap(), r#"{"ASK":"X"}"#);
        let long = "y".repeat(300_000);
        assert_eq!(ask(&path, &long, PATIENCE).unwrap(), long.to_uppercase());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(control);
        assert!(!path.exists());
        let text = ask(&path, "{}", PATIENCE).unwrap_err().to_string();
        assert!(text.contains("control.sock") && text.contains("no node is running"), "{text}");
    }

    #[test]
    fn a_path_that_is_too_long_for_a_socket_is_served() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("a-folder-with-a-long-name/".repeat(9));
        let dir = DataDir::open(&deep, "peer", 1).unwrap();
        let control = serve(&dir, shout()).unwrap();
        let path = dir.control_path();
        assert!(path.as_os_str().len() > 200 && is_served(&path));
        assert_eq!(ask(&path, "deep", PATIENCE).unwrap(), "DEEP");
        drop(control);
        assert!(!is_served(&path) && !path.exists());
    }

    #[test]
    fn a_socket_left_by_a_crash_is_replaced() {
        let (_root, dir) = data_dir();
        drop(UnixListener::bind(dir.control_path()).unwrap());
        assert!(dir.control_path().exists());
        let _control = serve(&dir, shout()).unwrap();
        assert_eq!(ask(&dir.control_path(), "again", PATIENCE).unwrap(), "AGAIN");
    }

    #[test]
    fn a_request_that_is_too_long_costs_only_its_connection() {
        let (_root, dir) = data_dir();
        let _control = serve(&dir, shout()).unwrap();
        assert!(ask(&dir.control_path(), &"x".repeat(REQUEST_BYTES_MAX), PATIENCE).is_err());
        assert_eq!(ask(&dir.control_path(), "next", PATIENCE).unwrap(), "NEXT");
    }

    #[test]
    fn an_answer_of_many_lines_ends_with_its_client_or_with_its_node() {
        let (_root, dir) = data_dir();
        let (gone, has_gone) = bounded::<Never>(0);
        let gone = std::sync::Mutex::new(Some(gone));
        let count = move |request: &str| {
            let last: u32 = request.parse().unwrap();
            let (mut at, held) = (0, gone.lock().unwrap().take());
            ControlAnswer::Lines(Box::new(move || {
                let _ = &held;
                at += 1;
                match at {
                    at if at > last => NextLine::End,
                    at if at % 2 == 0 => NextLine::Idle,
                    at => NextLine::Line(at.to_string()),
                }
            }))
        };
        let _control = serve(&dir, Arc::new(count)).unwrap();
        let mut seen = Vec::new();
        follow(&dir.control_path(), "1000000000", PATIENCE, |line| {
            seen.push(line.to_owned());
            seen.len() < 3
        })
        .unwrap();
        assert_eq!(seen, ["1", "3", "5"]);
        assert_eq!(has_gone.recv(), Err(crossbeam_channel::RecvError), "it was dropped");
        seen.clear();
        follow(&dir.control_path(), "4", PATIENCE, |line| {
            seen.push(line.to_owned());
            true
        })
        .unwrap();
        assert_eq!(seen, ["1", "3"]);
    }

    #[test]
    fn a_node_that_ends_before_it_answers_may_have_done_it_and_one_that_is_not_there_has_not() {
        let (_root, dir) = data_dir();
        let path = dir.control_path();
        let missing = ask(&path, "x", PATIENCE).unwrap_err();
        assert!(!may_be_done(&missing), "{missing}");
        let listener = UnixListener::bind(&path).unwrap();
        let hang_up = thread::spawn("ends", move || {
            let (stream, _) = listener.accept().unwrap();
            read_line(&stream, REQUEST_BYTES_MAX).unwrap();
        });
        let unanswered = ask(&path, "x", PATIENCE).unwrap_err();
        assert!(may_be_done(&unanswered), "{unanswered}");
        hang_up.unwrap().join().unwrap();
    }

    #[test]
    fn a_long_answer_for_which_there_is_no_room_is_an_error() {
        let (_root, dir) = data_dir();
        let idle: ControlHandler =
            Arc::new(|_| ControlAnswer::Lines(Box::new(|| NextLine::Line("x".to_owned()))));
        let _control = serve(&dir, idle).unwrap();
        let path = dir.control_path();
        let mut streams: Vec<_> = (0..STREAMS_MAX)
            .map(|_| BufReader::new(put(&path, "follow", PATIENCE).unwrap()))
            .collect();
        for stream in &mut streams {
            stream.read_line(&mut String::new()).unwrap();
        }
        let told = follow(&path, "follow", PATIENCE, |_| true).unwrap_err().to_string();
        assert!(told.contains("it does not take the command now"), "{told}");
    }

    #[test]
    fn a_server_that_stops_gives_the_answers_that_it_owes_but_waits_for_no_request() {
        let (_root, dir) = data_dir();
        let (entered_in, entered) = bounded::<()>(1);
        let (release, gate) = bounded::<()>(0);
        let held = move |request: &str| {
            entered_in.send(()).unwrap();
            gate.recv().unwrap();
            ControlAnswer::Line(request.to_uppercase())
        };
        let control = serve(&dir, Arc::new(held)).unwrap();
        let path = dir.control_path();
        let silent = UnixStream::connect(&path).unwrap();
        let asked = path.clone();
        let answered = thread::spawn("ask", move || ask(&asked, "late", PATIENCE)).unwrap();
        entered.recv().unwrap();
        // The silent client came first, and does not count.
        assert_eq!(control.answering.at_work(), 1);
        let (stopped_in, stopped) = bounded::<Never>(0);
        let stopping = thread::spawn("stop", move || {
            drop(control);
            drop(stopped_in);
        })
        .unwrap();
        // The acceptor has gone when no connection succeeds.
        while UnixStream::connect(&path).is_ok() {
            std::thread::yield_now();
        }
        let soon = Duration::from_millis(200);
        assert_eq!(stopped.recv_timeout(soon), Err(RecvTimeoutError::Timeout), "it owes one");
        release.send(()).unwrap();
        assert_eq!(answered.join().unwrap().unwrap(), "LATE");
        stopping.join().unwrap();
        assert!(!path.exists());
        drop(silent);
    }

    #[test]
    fn a_node_that_does_not_answer_is_given_up() {
        let (_root, dir) = data_dir();
        let (release, gate) = bounded::<()>(0);
        let stuck = move |_: &str| {
            let _ = gate.recv();
            ControlAnswer::Line(String::new())
        };
        let _control = serve(&dir, Arc::new(stuck)).unwrap();
        let err = ask(&dir.control_path(), "{}", Duration::from_millis(20)).unwrap_err();
        assert!(err.to_string().contains("no answer came in time"), "{err}");
        drop(release);
    }
}
