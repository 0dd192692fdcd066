//! Questions and orders of programs on this machine to a running chat, by its control socket.
//!
//! One line of JSON in, one out: `{"ask": …}`, and `{"lines": […], "json": …}` or
//! `{"error": …}`. Only `follow` has many: `{"ready": …, "me": …}`, and an event each.

use std::sync::{Arc, Weak};
use std::time::Duration;

use crossbeam_channel::RecvTimeoutError;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::backend::{ChatBackend, PAGE};
use super::command;
use super::engine::{ChatState, Engine};
use super::format;
use super::plain::lines_of;
use crate::cli::text::escape;
use crate::machine::chat::ChatStatus;
use crate::model::Time;
use crate::network::chat::{MessageFate, Watchers};
use crate::proto::chat::entry::{Entry, MemberId, SeqNo};
use crate::runtime::clock::Clock;
use crate::runtime::control::{ControlAnswer, ControlHandler, NextLine};

/// Interval at which an idle stream checks that its reader is there.
const BEAT: Duration = Duration::from_secs(1);

/// Time for the disk to keep a message, even if its sender waits less.
const DISK_PATIENCE: Duration = Duration::from_secs(2);

const VERIFY: &str = "the logs of an order whose members may lie are checked by their signatures, \
                      without a member: peer order verify data/logs/order_*";

const RECOVER: &str = "an order whose members may lie goes on only with a quorum, or a minority \
                       could speak for all; start its members again, or found another group with \
                       another roster";

const REMOVE: &str = "an order whose members may lie keeps the members of its roster; to go on \
                      without one, stop it, if the group bears that, or found another group with \
                      another roster";

/// Request to a chat.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub(super) enum ChatRequest {
    /// Show the status.
    Status,
    /// Show the last messages.
    History {
        /// Number of messages.
        count: usize,
    },
    /// Send a message.
    Send {
        /// Room of the message.
        room: String,
        /// Text of the message.
        text: String,
        /// Longest wait until it is final, in ms.
        wait_ms: u64,
    },
    /// Send a message, without waiting for its fate.
    Say {
        /// Room of the message.
        room: String,
        /// Text of the message.
        text: String,
    },
    /// Read final entries from the log.
    Page {
        /// Number of the first.
        from: SeqNo,
        /// Number of entries; [`PAGE`] at most are given.
        count: u64,
    },
    /// Report what happens from now on.
    Follow,
    /// Compare all members' logs.
    Verify,
    /// Go on alone: the majority is gone for good.
    Recover,
    /// Remove a member.
    Remove {
        /// Id of the member.
        id: MemberId,
    },
}

/// The engine, and the programs that ask it.
pub(super) struct LocalServer {
    /// Engine of the chat.
    pub(super) engine: Engine,
    watchers: Watchers,
}

impl LocalServer {
    /// For an engine whose events go to an announcer with these watchers.
    pub(super) fn new(engine: impl Into<Engine>, watchers: Watchers) -> Self {
        Self { engine: engine.into(), watchers }
    }

    fn send(&self, room: &str, text: &str, wait: Duration) -> Result<Value, String> {
        let (room, text): (Arc<str>, Arc<str>) = (command::room(room)?.into(), text.into());
        if text.is_empty() {
            return Ok(refused("an empty text is no message"));
        }
        let Some(watch) = self.watchers.add(&room, &text) else {
            return Ok(refused("too many programs wait for their messages here; try again"));
        };
        if !self.engine.say(room, text) {
            return Err("it is stopping".to_owned());
        }
        let (begun, mut is_kept) = (Clock::start(), false);
        loop {
            let patience = if is_kept { wait } else { wait.max(DISK_PATIENCE) };
            let left = patience.saturating_sub(begun.now().mono.since(Time::ZERO));
            match watch.fates.recv_timeout(left) {
                Ok(MessageFate::Kept) => is_kept = true,
                Ok(MessageFate::Final(seq)) => {
                    let lines = [format!("final: seq {}", seq.0)];
                    return Ok(json!({ "lines": lines, "json": { "seq_no": seq.0 } }));
                }
                Ok(MessageFate::Refused(reason)) => return Ok(refused(&reason)),
                Err(_) if is_kept => {
                    let line = "kept on disk, and not final yet: it is sent as soon as a majority \
                                is reached";
                    return Ok(json!({
                        "lines": [line], "json": { "seq_no": null, "kept": true },
                        "is_pending": true,
                    }));
                }
                Err(_) => {
                    return Err(
                        "the disk has not taken the message yet, so whether it is kept is \
                                not known; see peer chat status and history before sending it again"
                            .to_owned(),
                    );
                }
            }
        }
    }

    /// Ends the streams of all followers, so that the control socket can be closed.
    pub(super) fn close(&self) {
        self.watchers.close();
    }

    /// Begins a stream of events: the state first, then entries above its number, or the last of
    /// many. The engine does not wait for the reader.
    fn follow(&self) -> Result<ControlAnswer, String> {
        let notifications = self.watchers.follow();
        let status = self.engine.status().ok_or("it is stopping")?;
        let mut ready = Some(json!({ "ready": status, "me": self.engine.me() }));
        Ok(ControlAnswer::Lines(Box::new(move || {
            if let Some(ready) = ready.take() {
                return NextLine::Line(ready.to_string());
            }
            match notifications.recv_timeout(BEAT) {
                Ok(notification) => {
                    serde_json::to_string(&notification).map_or(NextLine::Idle, NextLine::Line)
                }
                Err(RecvTimeoutError::Timeout) => NextLine::Idle,
                Err(RecvTimeoutError::Disconnected) => NextLine::End,
            }
        })))
    }

    fn answer(&self, ask: ChatRequest) -> Result<Value, String> {
        match ask {
            ChatRequest::Status => {
                let status = self.engine.status();
                Ok(json!({ "lines": self.status_lines(), "json": status }))
            }
            ChatRequest::History { count } => {
                let entries = self.history(count)?;
                let me = MemberId(0);
                Ok(json!({ "lines": lines_of(&entries, me), "json": entries }))
            }
            ChatRequest::Send { room, text, wait_ms } => {
                self.send(&room, &text, Duration::from_millis(wait_ms))
            }
            ChatRequest::Say { room, text } => {
                self.say(command::room(&room)?.into(), text)?;
                Ok(json!({ "lines": [], "json": { "taken": true } }))
            }
            ChatRequest::Page { from, count } => {
                Ok(json!({ "lines": [], "json": self.page(from, count)? }))
            }
            ChatRequest::Follow => Err("it has many answers".to_owned()),
            ChatRequest::Verify => {
                let report = self.engine.crash(VERIFY)?.verify()?;
                Ok(super::compare::answer(&report, self.engine.me().id))
            }
            ChatRequest::Recover => {
                let status = self.engine.crash(RECOVER)?.recover();
                let status = status.map_err(|why| format!("nothing was recovered: {why}"))?;
                Ok(json!({ "lines": recovered_lines(&status), "json": status }))
            }
            ChatRequest::Remove { id } => {
                self.remove(id)?;
                let line = format!("asked the leader to remove {id} for good");
                Ok(json!({ "lines": [line], "json": { "asked": true } }))
            }
        }
    }
}

impl ChatBackend for LocalServer {
    fn status(&self) -> Option<ChatState> {
        self.engine.status()
    }

    fn page(&self, from: SeqNo, count: u64) -> Result<Vec<Arc<Entry>>, String> {
        self.engine.history(from, count.min(PAGE))
    }

    fn say(&self, room: Arc<str>, text: String) -> Result<(), String> {
        if self.engine.say(room, text) {
            Ok(())
        } else {
            Err("not sent: it is stopping".to_owned())
        }
    }

    fn leave(&self) {
        self.engine.leave();
    }

    fn remove(&self, id: MemberId) -> Result<(), String> {
        let engine = self.engine.crash(REMOVE)?;
        let Some(status) = engine.status() else { return Err("it is stopping".to_owned()) };
        if status.leader.is_none() {
            let reason = "nobody leads, so nobody can be removed; start enough members for a \
                          majority, or, if those that are missing are lost for good, go on \
                          without them: peer chat recover --i-know";
            return Err(reason.to_owned());
        }
        let members = status.members;
        if members.iter().any(|it| it.member.id == id) {
            if engine.remove(id) { Ok(()) } else { Err("it is stopping".to_owned()) }
        } else {
            Err(format!("{id} is no member; /status lists them"))
        }
    }

    fn status_lines(&self) -> Vec<String> {
        let status = match self.engine.status() {
            None => return vec!["it is stopping".to_owned()],
            Some(ChatState::Byzantine(state)) => return state.lines(),
            Some(ChatState::Crash(status)) => status,
        };
        let leader = status.leader.map_or("Unknown".to_owned(), |it| it.to_string());
        let others: Vec<_> = status.members.iter().filter(|it| it.member.id != status.id).collect();
        let known = others.iter().map(|it| {
            let away = if it.linked { "" } else { ", away" };
            let heard = it.heard_ms.map_or(String::from(", not heard yet"), |ms| {
                format!(", heard {:.1} s ago", Duration::from_millis(ms).as_secs_f32())
            });
            let lag =
                it.lag.filter(|it| *it > 0).map_or(String::new(), |it| format!(", lacks {it}"));
            format!("{} {}{away}{heard}{lag}", it.member.id, format::place(it.member.at))
        });
        let known: Vec<_> = known.collect();
        let list =
            if known.is_empty() { String::new() } else { format!(" ({})", known.join("; ")) };
        let here = others.iter().filter(|it| it.linked).count() + 1;
        let all = status.members.len().max(1);
        let quorum = match status.quorum {
            Some(true) => "yes",
            Some(false) => "NO",
            None => "not known yet",
        };
        let mut lines = vec![
            format!("Peer ID: {}", status.id.0),
            format!("Role: {}", format::role(status.role)),
            format!("Term: {}", status.term.0),
            format!("Address: {}", format::place(self.engine.me().at)),
            format!("Leader: {leader}"),
            format!("Known peers: {}{list}", others.len()),
            format!("Final: seq {} of {}", status.commit.0, status.last.0),
            format!("Majority: {quorum} ({here} of {all} reachable)"),
            format!("Pending: {}", status.pending.len()),
        ];
        if let Some(text) = self.engine.crash("").ok().and_then(|it| it.other_group()) {
            lines.push(format!("Another group: {text}"));
        }
        if let Some(it) = &status.recovered {
            let whom = format::list(&it.left_out);
            lines.push(format!("Recovered: by {}, as a new group, without {whom}", it.by));
        }
        if !status.promises.is_empty() {
            lines.insert(5, format!("Promised by: {}", format::list(&status.promises)));
        }
        lines
    }
}

/// Answer to a program whose message is not kept.
fn refused(reason: &str) -> Value {
    json!({ "lines": [], "json": { "seq_no": null, "refused": reason }, "refused": reason })
}

/// Answer to an operator who has recovered a group.
pub(super) fn recovered_lines(status: &ChatStatus) -> Vec<String> {
    let Some(it) = &status.recovered else {
        return vec!["nothing was recovered".to_owned()];
    };
    let whom = format::list(&it.left_out);
    vec![
        format!(
            "recovered: {} goes on alone as a new group, with seq 1 to {}",
            it.by, status.last.0
        ),
        format!("left out, and removed for good: {whom}"),
        "machines join anew, each with a new --data and --log-dir; whoever was left out is \
         told so when it comes back"
            .to_owned(),
    ]
}

/// Handler of requests, for as long as `local` lives.
pub(super) fn handler(local: Weak<LocalServer>) -> ControlHandler {
    Arc::new(move |request| {
        let answer = match (local.upgrade(), serde_json::from_str(request)) {
            (Some(local), Ok(ChatRequest::Follow)) => local.follow(),
            (Some(local), Ok(ask)) => {
                local.answer(ask).map(|it| ControlAnswer::Line(it.to_string()))
            }
            (None, _) => Err("it is stopping".to_owned()),
            (_, Err(error)) => Err(format!("not a question: {error}")),
        };
        let failed =
            |error: String| ControlAnswer::Line(json!({ "error": escape(&error) }).to_string());
        answer.unwrap_or_else(failed)
    })
}
