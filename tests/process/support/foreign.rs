//! A peer of the assignment's swarm that shares no code with the project: its own bytes, its own
//! simple habits, and the faults that such programs are known for. Unchokes everybody who is
//! interested, asks for one piece at a time, and ends when it knows that everybody has the file.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use folkmoot::runtime::thread::spawn;

use super::PATIENCE;
use super::process::eventually;

/// Deviations of a program from the assignment, and unusual habits that it allows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quirks {
    /// The id in the handshake is four ASCII digits.
    pub ascii_id: bool,
    /// The ten bytes of the handshake are not zero.
    pub dirty_handshake: bool,
    /// The program never sends a bitfield; it tells what it has by `have` messages.
    pub no_bitfield: bool,
    /// The bitfield comes after other messages.
    pub late_bitfield: bool,
    /// The bitfield is a byte too long and has spare bits set.
    pub sloppy_bitfield: bool,
    /// The program calls those after it in the list, not those before.
    pub reversed: bool,
    /// The program leaves as soon as it has everything, even if others do not.
    pub leaves_early: bool,
    /// The program sends each `have` many times, also for what it told before.
    pub have_storm: bool,
    /// The program never says that it is not interested.
    pub never_not_interested: bool,
    /// The program never says whether it is interested, and asks all the same when unchoked.
    pub never_interested: bool,
    /// The program pads the last piece to the full size.
    pub pads_last: bool,
    /// The program says in a message of its own that it is complete.
    pub extra_message: bool,
    /// The program sends byte by byte.
    pub byte_by_byte: bool,
    /// The program chokes and unchokes everybody after every fifth piece that it gave.
    pub restless: bool,
}

/// One of the peers.
#[derive(Clone, Debug)]
pub struct Seat {
    pub id: u32,
    pub port: u16,
    pub has_file: bool,
}

struct Neighbor {
    stream: TcpStream,
    have: Vec<bool>,
    unchoked_us: bool,
    asked: Option<usize>,
    was_interesting: Option<bool>,
    unchoked: bool,
    given: u32,
}

struct State {
    neighbors: BTreeMap<u32, Neighbor>,
    /// Peers for which it is known whether they have everything.
    complete: BTreeMap<u32, bool>,
    have: Vec<bool>,
    data: Vec<u8>,
    is_over: bool,
    complaint: Option<String>,
}

/// A running foreign peer.
pub struct Foreign {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    me: Seat,
    seats: Vec<Seat>,
    size: usize,
    piece: usize,
    quirks: Quirks,
    state: Mutex<State>,
    changed: Condvar,
}

impl Foreign {
    /// Starts `me`, one of `seats`, with the content if it has it. Its port is bound on return.
    pub fn start(me: u32, seats: &[Seat], content: &[u8], piece: usize, quirks: Quirks) -> Self {
        let own = seats.iter().find(|it| it.id == me).expect("it is one of them").clone();
        let count = content.len().div_ceil(piece);
        let data = if own.has_file { content.to_vec() } else { vec![0; content.len()] };
        let state = State {
            neighbors: BTreeMap::new(),
            complete: seats.iter().map(|it| (it.id, it.has_file || count == 0)).collect(),
            have: vec![own.has_file; count],
            data,
            is_over: false,
            complaint: None,
        };
        let shared = Arc::new(Shared {
            me: own.clone(),
            seats: seats.to_vec(),
            size: content.len(),
            piece,
            quirks,
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        let listener = TcpListener::bind(("127.0.0.1", own.port)).expect("its port is free");
        let mut threads = Vec::new();
        let accepting = Arc::clone(&shared);
        listener.set_nonblocking(true).expect("a socket");
        threads.push(thread(move || accept(&accepting, &listener)));
        let at = seats.iter().position(|it| it.id == me).expect("it is one of them");
        let called = if quirks.reversed { &seats[at + 1..] } else { &seats[..at] };
        for seat in called.iter().cloned() {
            let calling = Arc::clone(&shared);
            threads.push(thread(move || {
                let mut stream = None;
                eventually(|| {
                    stream = TcpStream::connect(("127.0.0.1", seat.port)).ok();
                    stream.is_some() || calling.lock().is_over
                });
                if let Some(stream) = stream {
                    talk(&calling, &stream, Some(seat.id));
                }
            }));
        }
        Self { shared, threads }
    }

    /// Waits for its end, and returns what it has.
    #[track_caller]
    pub fn finish(mut self) -> Vec<u8> {
        let ended = eventually(|| self.shared.lock().is_over);
        let mut state = self.shared.lock();
        let have = state.have.iter().filter(|it| **it).count();
        let complaint = state.complaint.take();
        let complete = state.complete.clone();
        let data = std::mem::take(&mut state.data);
        drop(state);
        self.stop();
        assert!(ended, "the foreign peer has {have} pieces and does not end: {complete:?}");
        assert_eq!(complaint, None, "the foreign peer complains");
        data
    }

    fn stop(&mut self) {
        let mut state = self.shared.lock();
        state.is_over = true;
        for neighbor in state.neighbors.values() {
            let _ = neighbor.stream.shutdown(Shutdown::Both);
        }
        drop(state);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics with it")
    }

    fn range(&self, index: usize) -> std::ops::Range<usize> {
        index * self.piece..self.size.min((index + 1) * self.piece)
    }

    fn send(&self, stream: &mut TcpStream, kind: u8, payload: &[u8]) {
        let mut frame = (payload.len() as u32 + 1).to_be_bytes().to_vec();
        frame.push(kind);
        frame.extend(payload);
        // A neighbor that has gone is noticed by its reader.
        let _ = if self.quirks.byte_by_byte && frame.len() < 64 {
            frame.iter().try_for_each(|byte| stream.write_all(&[*byte]))
        } else {
            stream.write_all(&frame)
        };
    }

    fn handshake(&self) -> Vec<u8> {
        let mut bytes = b"P2PFILESHARINGPROJ".to_vec();
        bytes.extend(if self.quirks.dirty_handshake { *b"0123456789" } else { [0; 10] });
        if self.quirks.ascii_id {
            bytes.extend(format!("{:04}", self.me.id).bytes());
        } else {
            bytes.extend(self.me.id.to_be_bytes());
        }
        bytes
    }

    fn bitfield(&self, have: &[bool]) -> Vec<u8> {
        let mut bytes = vec![0; have.len().div_ceil(8)];
        for (at, _) in have.iter().enumerate().filter(|(_, has)| **has) {
            bytes[at / 8] |= 0x80 >> (at % 8);
        }
        if self.quirks.sloppy_bitfield {
            if !have.len().is_multiple_of(8) {
                *bytes.last_mut().expect("one") |= 1;
            }
            bytes.push(0);
        }
        bytes
    }
}

fn thread(f: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    spawn("foreign", f).expect("a thread can be started")
}

fn accept(shared: &Arc<Shared>, listener: &TcpListener) {
    let mut threads = Vec::new();
    eventually_over(shared, || {
        if let Ok((stream, _)) = listener.accept() {
            stream.set_nonblocking(false).expect("a socket");
            let shared = Arc::clone(shared);
            threads.push(thread(move || talk(&shared, &stream, None)));
        }
    });
    for thread in threads {
        let _ = thread.join();
    }
}

/// Does something again and again until the peer is over.
fn eventually_over(shared: &Shared, mut step: impl FnMut()) {
    let mut state = shared.lock();
    while !state.is_over {
        drop(state);
        step();
        let waited = shared.changed.wait_timeout(shared.lock(), Duration::from_millis(5));
        state = waited.expect("no thread panics with it").0;
    }
}

/// One connection, from the handshake to its end.
fn talk(shared: &Shared, stream: &TcpStream, expected: Option<u32>) {
    let peer = match meet(shared, stream, expected) {
        Ok(peer) => peer,
        Err(error) => {
            let mut state = shared.lock();
            if !state.is_over && error.kind() == io::ErrorKind::InvalidData {
                state.complaint = Some(error.to_string());
            }
            return;
        }
    };
    let outcome = listen(shared, stream, peer);
    let _ = stream.shutdown(Shutdown::Both);
    let mut state = shared.lock();
    state.neighbors.remove(&peer);
    if let Err(error) = outcome
        && error.kind() == io::ErrorKind::InvalidData
        && !state.is_over
    {
        state.complaint = Some(error.to_string());
    }
    settle(shared, &mut state);
}

fn wrong(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// Both handshakes, and what is said first.
fn meet(shared: &Shared, mut stream: &TcpStream, expected: Option<u32>) -> io::Result<u32> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&shared.handshake())?;
    let mut bytes = [0; 32];
    stream.read_exact(&mut bytes)?;
    if bytes[..18] != *b"P2PFILESHARINGPROJ" || bytes[18..28] != [0; 10] {
        return Err(wrong(format!("a handshake of {bytes:?}")));
    }
    let peer = u32::from_be_bytes(bytes[28..].try_into().expect("four"));
    if expected.is_some_and(|it| it != peer) || !shared.seats.iter().any(|it| it.id == peer) {
        return Err(wrong(format!("{peer} answers")));
    }
    let mut state = shared.lock();
    if state.neighbors.contains_key(&peer) {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let mut own = stream.try_clone()?;
    let has_some = state.have.iter().any(|it| *it);
    if shared.quirks.no_bitfield || shared.quirks.late_bitfield {
        if shared.quirks.late_bitfield {
            shared.send(&mut own, 3, &[]);
            shared.send(&mut own, 0, &[]);
            shared.send(&mut own, 5, &shared.bitfield(&state.have));
        } else {
            for (at, _) in state.have.iter().enumerate().filter(|(_, has)| **has) {
                shared.send(&mut own, 4, &(at as u32).to_be_bytes());
            }
        }
    } else if has_some || shared.quirks.sloppy_bitfield {
        shared.send(&mut own, 5, &shared.bitfield(&state.have));
    }
    let count = state.have.len();
    let neighbor = Neighbor {
        stream: own,
        have: vec![false; count],
        unchoked_us: false,
        asked: None,
        was_interesting: None,
        unchoked: false,
        given: 0,
    };
    state.neighbors.insert(peer, neighbor);
    settle(shared, &mut state);
    Ok(peer)
}

fn listen(shared: &Shared, mut stream: &TcpStream, peer: u32) -> io::Result<()> {
    let mut is_first = true;
    loop {
        let mut head = [0; 5];
        stream.read_exact(&mut head)?;
        let len = u32::from_be_bytes(head[..4].try_into().expect("four")) as usize;
        if len == 0 || len > shared.piece + 5 + shared.size / 8 {
            return Err(wrong(format!("a length of {len}")));
        }
        let mut payload = vec![0; len - 1];
        stream.read_exact(&mut payload)?;
        let mut state = shared.lock();
        on_message(shared, &mut state, peer, (head[4], &payload, is_first))?;
        settle(shared, &mut state);
        is_first = false;
        if state.is_over {
            return Ok(());
        }
    }
}

fn on_message(
    shared: &Shared,
    state: &mut State,
    peer: u32,
    (kind, payload, is_first): (u8, &[u8], bool),
) -> io::Result<()> {
    let count = state.have.len();
    let index = |payload: &[u8]| -> io::Result<usize> {
        let four = payload.get(..4).ok_or_else(|| wrong(format!("{kind} without an index")))?;
        let index = u32::from_be_bytes(four.try_into().expect("four")) as usize;
        if index < count { Ok(index) } else { Err(wrong(format!("piece {index} of {count}"))) }
    };
    let State { neighbors, have, data, .. } = state;
    let neighbor = neighbors.get_mut(&peer).expect("it is connected");
    match (kind, payload.len()) {
        (0, 0) => {
            neighbor.unchoked_us = false;
            neighbor.asked = None;
        }
        (1, 0) => neighbor.unchoked_us = true,
        (2, 0) => {
            neighbor.unchoked = true;
            shared.send(&mut neighbor.stream, 1, &[]);
        }
        (3, 0) => {}
        (4, 4) => neighbor.have[index(payload)?] = true,
        (5, len) if is_first && len == count.div_ceil(8) => {
            for at in 0..len * 8 {
                let bit = payload[at / 8] & (0x80 >> (at % 8)) != 0;
                match neighbor.have.get_mut(at) {
                    Some(has) => *has |= bit,
                    None if bit => return Err(wrong("a spare bit is set".to_owned())),
                    None => {}
                }
            }
        }
        (6, 4) => {
            let index = index(payload)?;
            if !neighbor.unchoked && !shared.quirks.never_interested {
                return Err(wrong(format!("{peer} asks for {index} while choked")));
            }
            let mut bytes = payload.to_vec();
            bytes.extend(&data[shared.range(index)]);
            if shared.quirks.pads_last {
                bytes.resize(4 + shared.piece, 0);
            }
            shared.send(&mut neighbor.stream, 7, &bytes);
            neighbor.given += 1;
            if shared.quirks.restless && neighbor.given.is_multiple_of(5) {
                shared.send(&mut neighbor.stream, 0, &[]);
                shared.send(&mut neighbor.stream, 1, &[]);
            }
        }
        (7, 4..) => {
            let index = index(payload)?;
            if neighbor.asked != Some(index) {
                return Err(wrong(format!("{peer} sends piece {index} unasked")));
            }
            neighbor.asked = None;
            let range = shared.range(index);
            if payload.len() - 4 != range.len() {
                return Err(wrong(format!("piece {index} has {} bytes", payload.len() - 4)));
            }
            data[range].copy_from_slice(&payload[4..]);
            have[index] = true;
            let all = if shared.quirks.have_storm { 0..count } else { index..index + 1 };
            for neighbor in neighbors.values_mut() {
                for at in all.clone().filter(|at| have[*at]) {
                    shared.send(&mut neighbor.stream, 4, &(at as u32).to_be_bytes());
                }
            }
        }
        _ => return Err(wrong(format!("type {kind} with {} bytes", payload.len()))),
    }
    Ok(())
}

/// Draws the conclusions from what is known now: interest, requests, the end.
fn settle(shared: &Shared, state: &mut State) {
    let State { neighbors, complete, have, is_over, .. } = state;
    let mut asked: Vec<_> = neighbors.values().filter_map(|it| it.asked).collect();
    for (peer, neighbor) in neighbors.iter_mut() {
        if neighbor.have.iter().all(|it| *it) {
            complete.insert(*peer, true);
        }
        let has_more = (0..have.len()).any(|at| neighbor.have[at] && !have[at]);
        if neighbor.was_interesting != Some(has_more) {
            neighbor.was_interesting = Some(has_more);
            let is_said = if has_more {
                !shared.quirks.never_interested
            } else {
                !shared.quirks.never_not_interested && !shared.quirks.never_interested
            };
            if is_said {
                shared.send(&mut neighbor.stream, if has_more { 2 } else { 3 }, &[]);
            }
        }
        if neighbor.unchoked_us && neighbor.asked.is_none() {
            let wanted =
                (0..have.len()).find(|at| neighbor.have[*at] && !have[*at] && !asked.contains(at));
            if let Some(at) = wanted {
                neighbor.asked = Some(at);
                asked.push(at);
                shared.send(&mut neighbor.stream, 6, &(at as u32).to_be_bytes());
            }
        }
    }
    let own = have.iter().all(|it| *it);
    if own && complete.insert(shared.me.id, true) == Some(false) && shared.quirks.extra_message {
        for neighbor in neighbors.values_mut() {
            shared.send(&mut neighbor.stream, 42, b"done");
        }
    }
    if own && (shared.quirks.leaves_early || complete.values().all(|it| *it)) {
        *is_over = true;
        for neighbor in neighbors.values() {
            let _ = neighbor.stream.shutdown(Shutdown::Write);
        }
    }
    shared.changed.notify_all();
}
