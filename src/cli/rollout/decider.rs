//! The log of decisions: a chat group of the nodes, whose final entries tell how transactions ended
//! (T10). The first entry for a transaction decides it, no matter which node wrote it.
//!
//! No question is answered before the past of the log has been read.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded, never, select, tick};
use serde::{Deserialize, Serialize};

use super::local::Local;
use crate::cli::CliError;
use crate::cli::door::Door;
use crate::machine::chat::Config;
use crate::model::{Endpoint, KeyPair, Now, PublicKey};
use crate::proto::chat::entry::{At, Body, Entry, Member, MemberId, SeqNo};
use crate::proto::rollout::{Committed, Participant, Roster, TxId};
use crate::runtime::chat::{self, Engine, Founds, Told};
use crate::runtime::driver::options::{Serve, Sink};
use crate::runtime::rollout::{self, Standing};
use crate::runtime::thread;

/// Room of the group that holds the decisions.
const ROOM: &str = "decisions";

/// Number of entries read at a time.
const PAGE: u64 = 1_000;

/// Interval at which the thread checks that all nodes are members.
const LOOK: std::time::Duration = std::time::Duration::from_millis(100);

/// Largest number of items that wait for this thread, in each of its channels.
const WAITING_MAX: usize = 4_096;

/// Decision on a transaction, as an entry of the log.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Decision {
    /// Name of the transaction.
    txid: TxId,
    /// True to commit it, false to abort it.
    commit: bool,
    /// Proof that it may be committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    proof: Option<Box<Committed>>,
}

impl Decision {
    /// Returns a decision that the machine asks for.
    pub(super) const fn new(txid: TxId, commit: bool, proof: Option<Box<Committed>>) -> Self {
        Self { txid, commit, proof }
    }
}

/// Decisions of the log, and those asked of it that are not final yet.
#[derive(Debug, Default)]
struct Book {
    decided: BTreeMap<TxId, Decision>,
    asked: BTreeMap<TxId, bool>,
}

impl Book {
    /// Takes an entry of the log. Returns its decision, if it is the first for its transaction.
    fn take(&mut self, entry: &Entry) -> Option<&Decision> {
        let Body::Chat(chat) = &entry.body else { return None };
        // Other messages of the room decide nothing.
        let decision: Decision = serde_json::from_str(&chat.payload).ok()?;
        let txid = decision.txid.clone();
        self.asked.remove(&txid);
        if self.decided.contains_key(&txid) {
            return None;
        }
        Some(self.decided.entry(txid).or_insert(decision))
    }

    /// True if the log is still to be asked.
    fn asks(&mut self, decision: &Decision) -> bool {
        let before = self.asked.insert(decision.txid.clone(), decision.commit);
        before != Some(decision.commit)
    }
}

struct Ear(Sender<Told>);

impl Sink<Told> for Ear {
    fn take(&self, _: Now, told: Told) -> bool {
        self.0.try_send(told).is_ok()
    }
}

/// Part of a node in the log of decisions.
pub(super) struct Decider {
    door: Arc<Door>,
    wanted: Receiver<Decision>,
    keys: KeyPair,
    log_dir: PathBuf,
    marker: PathBuf,
    /// True if all nodes are members of the group, so that a majority of them decides.
    is_ready: Arc<AtomicBool>,
}

impl Decider {
    /// Returns a part that begins with the history, and the sender of the decisions asked of it.
    pub(super) fn new(
        keys: &KeyPair,
        log_dir: PathBuf,
        marker: PathBuf,
    ) -> (Self, Sender<Decision>) {
        let (want, wanted) = bounded(WAITING_MAX);
        let keys = KeyPair::from_secret(keys.secret_bytes());
        let (door, is_ready) = (Arc::default(), Arc::default());
        (Self { door, wanted, keys, log_dir, marker, is_ready }, want)
    }

    /// Returns whether the log can decide; once true, it stays true.
    pub(super) fn readiness(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_ready)
    }

    /// Returns the server of connections of the group's members.
    pub(super) fn door(&self) -> Arc<dyn Serve> {
        Arc::clone(&self.door) as Arc<dyn Serve>
    }

    /// Starts the thread, which runs until the node stops or the group fails.
    ///
    /// # Errors
    /// Fails if the thread cannot be started.
    pub(super) fn run(self, local: &Arc<Local>) -> Result<JoinHandle<()>, CliError> {
        let local = Arc::clone(local);
        let work = move || {
            if let Err(reason) = self.decide(&local) {
                ::log::error!("the log of decisions: {reason}");
            }
        };
        let system = |source| CliError::System { action: "start a thread", source };
        thread::spawn("decider", work).map_err(system)
    }

    fn decide(&self, local: &Local) -> Result<(), String> {
        // The first decision that is wanted comes long after the roster is known.
        let mut first = None;
        let roster = loop {
            match roster_of(local) {
                Ok(Some(roster)) => break roster,
                Ok(None) => {}
                // The node is stopping.
                Err(_) => return Ok(()),
            }
            match self.wanted.recv_timeout(std::time::Duration::from_millis(100)) {
                Ok(decision) => first = Some(decision),
                Err(crossbeam_channel::RecvTimeoutError::Timeout) => {}
                Err(crossbeam_channel::RecvTimeoutError::Disconnected) => return Ok(()),
            }
        };
        let (tell, told) = bounded(WAITING_MAX);
        let group = self.start(local, &roster, tell)?;
        self.door.open(group.server());
        let outcome = self.attend(local, &group, &told, first);
        group.stop();
        outcome
    }

    fn start(&self, local: &Local, roster: &Roster, tell: Sender<Told>) -> Result<Engine, String> {
        let me = local.engine.me();
        let others: Vec<&Participant> =
            roster.nodes().filter(|it| it.node_id != me.node_id).collect();
        let is_founder = roster.nodes().next().is_some_and(|it| it.node_id == me.node_id);
        let at = |it: &Participant| {
            let found = format!("{}:{}", it.host, it.port).to_socket_addrs();
            let addr: Option<SocketAddr> = found.ok().and_then(|mut found| found.next());
            addr.map(Endpoint::from).ok_or_else(|| format!("{} has no address", it.node_id))
        };
        let seeds: Result<Vec<_>, String> =
            others.into_iter().map(|it| Ok((Some(member_id(&it.key)), at(it)?))).collect();
        let me = Member { id: member_id(&me.key), at: At::from(at(me)?), key: me.key };
        let options = chat::Options {
            listen: None,
            keys: KeyPair::from_secret(self.keys.secret_bytes()),
            me,
            log_dir: self.log_dir.clone(),
            marker: Some(self.marker.clone()),
            seeds: seeds?,
            config: Config::default(),
            cluster_keys: None,
            // The lowest name of the first roster founds the group; a node that comes later finds
            // one.
            founds: if is_founder { Founds::IfNew } else { Founds::Never },
            limits: chat::Limits::default(),
            // A node that does not vote on rollouts decides nothing about them.
            allows: Some(Box::new(allows(&local.engine))),
            sink: Box::new(Ear(tell)),
        };
        Engine::start(options).map_err(|error| error.to_string())
    }

    fn attend(
        &self,
        local: &Local,
        group: &Engine,
        told: &Receiver<Told>,
        first: Option<Decision>,
    ) -> Result<(), String> {
        let mut book = Book::default();
        let mut next = SeqNo(1);
        read_past(group, &mut next, &mut book)?;
        if let Some(first) = first {
            want(local, group, &mut book, &first);
        }
        let mut ticks = tick(LOOK);
        loop {
            select! {
                recv(ticks) -> _ => {
                    if self.is_complete(local, group) {
                        self.is_ready.store(true, Ordering::Release);
                        ticks = never();
                    }
                }
                recv(self.wanted) -> decision => {
                    let Ok(decision) = decision else { return Ok(()) };
                    want(local, group, &mut book, &decision);
                }
                recv(told) -> told => match told {
                    Ok(Told::Delivered(entries)) => {
                        for entry in entries {
                            if entry.seq_no > next {
                                // An entry found no room on its way here.
                                read_past(group, &mut next, &mut book)?;
                            }
                            next = next.max(SeqNo(entry.seq_no.0 + 1));
                            if let Some(decision) = book.take(&entry) {
                                answer(local, decision);
                            }
                        }
                    }
                    Ok(Told::Failed(reason)) => return Err(reason),
                    Ok(Told::Event(_) | Told::Note(_)) => {}
                    Err(_) => return Ok(()),
                },
            }
        }
    }
}

impl Decider {
    /// True if all nodes are members of the group, and one leads.
    fn is_complete(&self, local: &Local, group: &Engine) -> bool {
        let (Ok(Some(roster)), Some(status)) = (roster_of(local), group.status()) else {
            return false;
        };
        let is_member = |key| status.members.iter().any(|it| it.member.key == key);
        status.leader.is_some() && roster.nodes().all(|it| is_member(it.key))
    }
}

/// Reads the entries that are final already.
fn read_past(group: &Engine, next: &mut SeqNo, book: &mut Book) -> Result<(), String> {
    loop {
        let page = group.history(*next, PAGE)?;
        let Some(last) = page.last() else { return Ok(()) };
        *next = SeqNo(last.seq_no.0 + 1);
        for entry in &page {
            book.take(entry);
        }
    }
}

fn want(local: &Local, group: &Engine, book: &mut Book, decision: &Decision) {
    if let Some(decided) = book.decided.get(&decision.txid) {
        return answer(local, decided);
    }
    if book.asks(decision)
        && let Ok(text) = serde_json::to_string(decision)
    {
        // The group keeps it and sends it again until it is final.
        group.say(ROOM, text);
    }
}

fn answer(local: &Local, decision: &Decision) {
    let Decision { txid, commit, proof } = decision.clone();
    local.engine.decided(txid, commit, proof);
}

/// Returns the test of keys that may be members of the group: those of the roster.
fn allows(engine: &rollout::Engine) -> impl Fn(&PublicKey) -> bool + Send + Sync + 'static {
    let engine = engine.clone();
    move |key| match engine.standing() {
        Ok(Standing::Running { status, .. }) => status.roster.nodes().any(|it| it.key == *key),
        Ok(Standing::Forming { .. }) | Err(_) => false,
    }
}

fn roster_of(local: &Local) -> Result<Option<Roster>, String> {
    match local.engine.standing() {
        Ok(Standing::Running { status, .. }) => Ok(Some(status.roster)),
        Ok(Standing::Forming { .. }) => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// Returns the number of a key as a member of the group.
fn member_id(key: &PublicKey) -> MemberId {
    use crate::model::SigningBytes;
    let digest = SigningBytes::new("folkmoot/rollout/member/1").key(key).sha256();
    let number = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
    MemberId(number.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::WallTime;
    use crate::proto::chat::entry::{Chat, MsgId, Origin, Term};

    fn entry(number: u64, text: &str) -> Entry {
        let origin = Origin { member: MemberId(1), client: 1 };
        let msg_id = MsgId { origin, number };
        let body = Body::Chat(Chat { msg_id, room_id: ROOM.into(), payload: text.into() });
        let (seq_no, leader) = (SeqNo(number), MemberId(1));
        Entry { seq_no, term: Term(1), leader, time: WallTime(0), body }
    }

    #[test]
    fn the_first_entry_for_a_transaction_is_its_end() {
        let mut book = Book::default();
        let txid: TxId = "step-node-a-1-2".parse().unwrap();
        let said = |commit| Decision::new(txid.clone(), commit, None);
        assert!(book.asks(&said(true)));
        assert!(!book.asks(&said(true)), "it is kept until it is final");
        let text = |commit| serde_json::to_string(&said(commit)).unwrap();
        assert!(book.take(&entry(1, "hello")).is_none());
        let first = book.take(&entry(2, &text(false))).unwrap();
        assert_eq!((&first.txid, first.commit), (&txid, false));
        assert!(book.take(&entry(3, &text(true))).is_none(), "it is decided");
        assert!(!book.decided[&txid].commit);
    }
}
