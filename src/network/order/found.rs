//! Founding of a Byzantine order by members of the fleet, on a topic of it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};

use super::entry::{FOUND, Place};
use super::follow::Follower;
use super::roster::OrderRoster;
use super::settings::{Kind, Order};
use super::{OrderedLog, TellOrder};
use crate::machine::Never;
use crate::machine::founding::{
    Founding, FoundingOutput, FoundingRecord, FoundingStage, FoundingVerdict, IN, OUT,
};
use crate::machine::quorum::QuorumRule;
use crate::model::Time;
use crate::model::statement::Admission;
use crate::network::error::StartError;
use crate::network::message::Message;
use crate::network::peer::Network;
use crate::network::queue::{Queue, RecvError};
use crate::proto::bft::founding::{FoundingNote, SignedRoster};
use crate::proto::chat::entry::Body;
use crate::runtime::clock::Clock;
use crate::runtime::{files, thread};

/// Topic of the notes of members that found orders.
const TOPIC: &str = "folkmoot/order";

/// Greatest size of a note, in bytes: 64 founders with all their signatures are less.
const NOTE_BYTES_MAX: usize = 64 * 1024;

/// Longest wait for a note before the rest is looked after.
const LOOK: Duration = Duration::from_millis(50);

/// Time that founders have to say in the log that they are in.
const IN_MAX: Duration = Duration::from_secs(20);

/// Order that members of the fleet have founded.
#[doc(hidden)]
pub struct FoundedOrder {
    /// Running member of the group.
    pub log: OrderedLog,
    /// Founders, all of which have signed this roster.
    pub roster: OrderRoster,
    /// Name by which the group's identity follows from the roster.
    pub name: String,
}

/// A group that its founders run to decide whether it is founded.
struct Attempt {
    log: OrderedLog,
    roster: OrderRoster,
    name: String,
    dir: PathBuf,
    entries: Follower,
    verdict: FoundingVerdict,
    /// Time of the word that it takes too long; `None` once that is said.
    out_at: Option<Time>,
}

/// Founding under way.
struct Work<'a> {
    network: Arc<Network>,
    name: String,
    order: Order,
    told: &'a TellOrder<'a>,
    founding: Founding,
    file: PathBuf,
    clock: Clock,
    attempt: Option<Attempt>,
}

impl OrderedLog {
    /// Founds the order `name` with members of the fleet, or goes on in the group that was founded
    /// before; `None` if nobody wants that any more, by `goes_on`. `words` takes the state of the
    /// founding, for people.
    ///
    /// # Errors
    /// Fails if the fleet has no seeds that decide by a Byzantine quorum, the disk refuses, or the
    /// network has stopped.
    #[doc(hidden)]
    pub fn found(
        network: &Arc<Network>,
        (name, order): (&str, Order),
        told: &TellOrder<'_>,
        (words, goes_on): (impl FnMut(&str), impl Fn() -> bool),
    ) -> Result<Option<FoundedOrder>, StartError> {
        let Kind::Fleet(size) = order.kind else {
            return Err(StartError::Setting("the order has a roster".to_owned()));
        };
        check(network, size)?;
        let heard = network.subscribe(TOPIC)?;
        let file = network.peer.dir.join(format!("founding-{name}.json"));
        let record = read(&file)?;
        let (me, clock) = ((network.endpoint(), network.keys()), Clock::start());
        let founding = Founding::new((name.to_owned(), size), me, record, clock.now().mono);
        let (network, name) = (Arc::clone(network), name.to_owned());
        let work = Work { network, name, order, told, founding, file, clock, attempt: None };
        work.run(heard, (words, goes_on))
    }
}

/// Checks that the seeds decide by a Byzantine quorum: their word makes a key a candidate's.
fn check(network: &Network, size: usize) -> Result<(), StartError> {
    let (seeds, rule) = network.peer.driver.inspect(|node, _| {
        let book = node.applicant().book();
        (book.len(), book.rule())
    });
    let complaint = if !(1..=crate::proto::bft::committee::VOTERS_MAX).contains(&size) {
        "an order is founded by 1 to 64 members"
    } else if seeds == 0 {
        "an order is founded by a fleet with seeds, which certify its members' keys; without seeds \
         name its members in a roster"
    } else if rule != QuorumRule::Byzantine {
        "an order is founded by a fleet whose seeds decide with a Byzantine quorum: say --quorum \
         byzantine on all its nodes, or name the order's members in a roster"
    } else {
        return Ok(());
    };
    Err(StartError::Setting(complaint.to_owned()))
}

fn read(file: &PathBuf) -> Result<FoundingRecord, StartError> {
    let text = match std::fs::read(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Default::default()),
        Err(error) => return Err(StartError::System(error)),
    };
    serde_json::from_slice(&text).map_err(|error| {
        StartError::Setting(format!(
            "{} is damaged ({error}): it holds the group that this peer has founded; bring it back \
             from a backup, or write its roster in a file for --order",
            file.display()
        ))
    })
}

impl Work<'_> {
    fn run(
        mut self,
        heard: Queue<Message>,
        (mut words, goes_on): (impl FnMut(&str), impl Fn() -> bool),
    ) -> Result<Option<FoundedOrder>, StartError> {
        let mut told = String::new();
        if let FoundingStage::Entered(roster) | FoundingStage::Founded(roster) =
            self.founding.stage()
        {
            let roster = roster.clone();
            self.enter(&roster)?;
        }
        loop {
            let text = self.founding.words();
            if text != told {
                words(&text);
                told = text;
            }
            if matches!(self.founding.stage(), FoundingStage::Founded(_)) {
                return self.finish(heard).map(Some);
            }
            if !goes_on() {
                return Ok(None);
            }
            if admission(&self.network).is_some() {
                let outputs = self.founding.on_time(self.clock.now().mono);
                self.carry_out(outputs)?;
            }
            match heard.recv_timeout(LOOK) {
                Ok(message) => {
                    let now = self.clock.now().mono;
                    let outputs = hear(&self.network, &mut self.founding, now, &message);
                    self.carry_out(outputs)?;
                }
                Err(RecvError::Missed(_) | RecvError::Missing { .. } | RecvError::Empty) => {}
                Err(RecvError::Closed) => return Ok(None),
            }
            self.look_into_log()?;
        }
    }

    fn carry_out(&mut self, outputs: Vec<FoundingOutput>) -> Result<(), StartError> {
        for output in outputs {
            match output {
                FoundingOutput::Store(record) => store(&self.file, &record)?,
                FoundingOutput::Say => say(&self.network, &self.founding),
                FoundingOutput::Enter(roster) => self.enter(&roster)?,
                FoundingOutput::Leave(roster) => {
                    if let Some(attempt) = self.attempt.take() {
                        let now = self.clock.now().mono;
                        self.founding.on_late(now, &roster, attempt.verdict.missing());
                        attempt.log.stop();
                        drop(attempt.log);
                        // A log that stays is in nobody's way.
                        let _ = std::fs::remove_dir_all(&attempt.dir);
                    }
                }
            }
        }
        Ok(())
    }

    /// Runs the group of a roster that all its members have signed.
    fn enter(&mut self, signed: &SignedRoster) -> Result<(), StartError> {
        let (name, members) = (signed.salt(&self.name), &signed.members);
        let group = signed.group(&self.name);
        let me = signed.id_of(&self.network.key());
        let (Some(group), Some(me)) = (group.filter(|it| signed.is_complete(it)), me) else {
            return Err(StartError::Setting(format!(
                "{} holds a roster that its members have not signed",
                self.file.display()
            )));
        };
        let at = |it: &crate::proto::chat::entry::Member| {
            (it.id.0, crate::model::Endpoint::new(it.at.host, it.at.port), it.key)
        };
        let roster = OrderRoster::of(members.iter().map(at))
            .map_err(|reason| StartError::Setting(reason.to_owned()))?;
        let mut order = self.order.clone();
        order.kind = Kind::Byzantine(roster.clone());
        let root = order.data.take().unwrap_or_else(|| self.network.peer.dir.join("order"));
        let dir = root.join(format!("order_{}_{}", me.0, &group.to_string()[..8]));
        order.data = Some(dir.clone());
        let log = OrderedLog::start(&self.network, &name, order, (self.told)())?;
        log.append(FOUND, IN.to_owned());
        let entries = log.follow(Place(1));
        let verdict = FoundingVerdict::new(members.len());
        let out_at = Some(self.clock.now().mono.after(IN_MAX));
        self.attempt = Some(Attempt { log, roster, name, dir, entries, verdict, out_at });
        Ok(())
    }

    /// Reads what the founders say in the log of the group that was entered.
    fn look_into_log(&mut self) -> Result<(), StartError> {
        let Some(attempt) = &mut self.attempt else { return Ok(()) };
        let now = self.clock.now().mono;
        let mut decided = None;
        while decided.is_none()
            && let Some(entry) = attempt.entries.next_ready()
        {
            if let Body::Chat(chat) = &entry.body
                && &*chat.room_id == FOUND
            {
                decided = attempt.verdict.take(chat.msg_id.origin.member, &chat.payload);
            }
        }
        if decided.is_none() && attempt.out_at.is_some_and(|at| at <= now) {
            attempt.out_at = None;
            attempt.log.append(FOUND, OUT.to_owned());
        }
        let Some(is_founded) = decided else { return Ok(()) };
        let outputs = self.founding.on_decided(now, is_founded);
        self.carry_out(outputs)
    }

    /// The founded order; a thread goes on to tell others of it.
    fn finish(self, heard: Queue<Message>) -> Result<FoundedOrder, StartError> {
        let Self { network, mut founding, file, clock, attempt, .. } = self;
        let Some(Attempt { mut log, roster, name, .. }) = attempt else {
            return Err(StartError::Setting("a founded order has a log".to_owned()));
        };
        let (runs, stop): (Sender<Never>, Receiver<Never>) = bounded(0);
        log.runs = Some(runs);
        thread::spawn("order-fleet", move || {
            while stop.try_recv() != Err(TryRecvError::Disconnected) {
                let message = match heard.recv_timeout(LOOK * 10) {
                    Ok(message) => message,
                    Err(RecvError::Missed(_) | RecvError::Missing { .. } | RecvError::Empty) => {
                        continue;
                    }
                    Err(RecvError::Closed) => return,
                };
                for output in hear(&network, &mut founding, clock.now().mono, &message) {
                    match output {
                        FoundingOutput::Store(record) => {
                            if let Err(error) = store(&file, &record) {
                                return ::log::error!("{}: {error}", file.display());
                            }
                        }
                        FoundingOutput::Say => say(&network, &founding),
                        FoundingOutput::Enter(_) | FoundingOutput::Leave(_) => {}
                    }
                }
            }
        })?;
        Ok(FoundedOrder { log, roster, name })
    }
}

/// Certificate of this peer's own admission.
fn admission(network: &Network) -> Option<Admission> {
    network.peer.driver.inspect(|node, _| node.applicant().admission().cloned())
}

/// Says this member's note to all; those that do not hear it hear the next one.
fn say(network: &Network, founding: &Founding) {
    let note = admission(network).map(|it| founding.note(it));
    if let Some(text) = note.and_then(|it| serde_json::to_vec(&it).ok()) {
        let _ = network.broadcast(TOPIC, text);
    }
}

fn hear(
    network: &Network,
    founding: &mut Founding,
    now: Time,
    message: &Message,
) -> Vec<FoundingOutput> {
    if message.data.len() > NOTE_BYTES_MAX {
        return Vec::new();
    }
    let Ok(note) = serde_json::from_slice::<FoundingNote>(&message.data) else { return Vec::new() };
    let holds = |it: &Admission| {
        let book =
            |node: &crate::node::PeerNode, _| node.applicant().book().verify_admission(it).is_ok();
        network.peer.driver.inspect(book)
    };
    founding.on_note(now, (message.origin, message.key), note, holds)
}

fn store(file: &std::path::Path, record: &FoundingRecord) -> std::io::Result<()> {
    let text = serde_json::to_vec(record).map_err(std::io::Error::other)?;
    files::replace_file(file, &text)
}
