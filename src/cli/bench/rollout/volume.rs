//! Measurement of one large body: through the data plane to a server that sends it back, and so in
//! both directions at once.

use std::io::{self, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use crossbeam_channel::Receiver;
use serde_json::json;

use super::server::Server;
use crate::cli::CliError;
use crate::cli::bench::figure::{self, Sheet, Target};
use crate::model::Time;
use crate::runtime::clock::Clock;
use crate::runtime::thread;

/// Target for the largest resident memory meanwhile, in MiB.
const RESIDENT_MIB: Target = Target::AtMost(64.0);

/// Bytes after which memory is looked at again.
const LOOK_BYTES: u64 = 16 * 1024 * 1024;

/// Longest wait for any bytes before the measurement is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Measures, and prints a JSON line a figure.
///
/// # Errors
/// Fails if the proxy does not start, if fewer bytes come back, and at a signal.
pub(super) fn run(bytes: u64, signals: &Receiver<&'static str>) -> Result<(), CliError> {
    let system = |action| move |source| CliError::System { action, source };
    let proxy = Server::own(Some(echo().map_err(system("start a server"))?))?;
    let sheet = Sheet::new(json!({
        "bench": "rollout", "cores": figure::cores(), "volume_bytes": bytes,
    }));
    let (clock, cpu_before) = (Clock::start(), proxy.cpu_seconds());
    let mut answer = send(proxy.addr(), bytes).map_err(system("send a body"))?;
    let (mut came, mut resident) = (0, 0.0_f64);
    while came < bytes {
        if let Ok(signal) = signals.try_recv() {
            return Err(CliError::Failed(format!("stopped by {signal}")));
        }
        let mut part = answer.by_ref().take(LOOK_BYTES.min(bytes - came));
        match io::copy(&mut part, &mut io::sink()).map_err(system("read a body"))? {
            0 => return Err(CliError::Failed(format!("only {came} bytes came back"))),
            len => came += len,
        }
        resident = resident.max(proxy.memory().0);
    }
    let seconds = clock.mono().since(Time::ZERO).as_secs_f64();
    let mib = bytes as f64 / f64::from(1 << 20);
    let cpu = proxy.cpu_seconds() - cpu_before;
    sheet.figure("volume_each_way_mib_per_s", &[mib / seconds])?;
    sheet.figure("volume_cpu_s_per_gib", &[cpu * 1024.0 / mib])?;
    sheet.judged("volume_resident_mib", &[resident], RESIDENT_MIB)
}

/// Starts a server that answers each request with its body.
fn echo() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let addr = listener.local_addr()?;
    let serve = move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let answer = || {
                let mut to = stream.try_clone()?;
                let mut from = BufReader::new(stream);
                loop {
                    let len = read_head(&mut from)?;
                    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n");
                    to.write_all(head.as_bytes())?;
                    io::copy(&mut from.by_ref().take(len), &mut to)?;
                }
            };
            // Its connection ends with this process at the latest.
            let _ = thread::spawn("bench:echo", move || -> io::Result<()> { answer() });
        }
    };
    thread::spawn("bench:port", serve)?;
    Ok(addr)
}

/// Sends a body of as many bytes; returns the body of the answer.
fn send(addr: SocketAddr, bytes: u64) -> io::Result<impl io::Read> {
    let mut stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut answer = BufReader::new(stream.try_clone()?);
    let head =
        format!("POST /volume HTTP/1.1\r\nHost: localhost\r\nContent-Length: {bytes}\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    thread::spawn("bench:send", move || io::copy(&mut io::repeat(b'x').take(bytes), &mut stream))?;
    match read_head(&mut answer)? {
        len if len == bytes => Ok(answer.take(bytes)),
        len => Err(io::Error::other(format!("the answer has {len} bytes"))),
    }
}

/// Reads a head; returns the length of the body behind it.
fn read_head(from: &mut impl io::BufRead) -> io::Result<u64> {
    let (mut line, mut len) = (String::new(), None);
    loop {
        line.clear();
        if from.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match line.trim_end().to_ascii_lowercase().split_once(": ") {
            Some(("content-length", value)) => len = value.parse().ok(),
            Some(_) => {}
            None if line.trim_end().is_empty() => break,
            None => {}
        }
    }
    len.ok_or_else(|| io::Error::other("a message without a length"))
}
