//! Membership of this peer in a group of its fleet: a chat, or the nodes of a rollout.
//!
//! On a topic of the group's kind a member that looks for the group asks, and members of the group
//! answer; [`Bootstrap`] decides who founds the group. Only members of the fleet speak there, which
//! a quorum of its seeds has let in.

use std::fmt::Display;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::machine::bootstrap::{Bootstrap, Output};
use crate::model::Endpoint;
use crate::network::error::NetworkError;
use crate::network::message::Message;
use crate::network::peer::Network;
use crate::network::queue::{Queue, RecvError};
use crate::runtime::clock::Clock;
use crate::runtime::thread;

/// Longest wait for the fleet to admit this member before it goes on alone.
const ADMISSION_USUAL: Duration = Duration::from_secs(15);

/// Longest wait for a neighbor, if the seeds know other members.
const NEIGHBOR_MAX: Duration = Duration::from_secs(5);

/// Interval of the checks whether the fleet has admitted this member.
const LOOK: Duration = Duration::from_millis(50);

/// Id of a member in its group.
pub(super) trait Id:
    Ord + Clone + Display + Serialize + DeserializeOwned + Send + 'static
{
}

impl<I: Ord + Clone + Display + Serialize + DeserializeOwned + Send + 'static> Id for I {}

/// Details of a member that its announcement has beside the id.
pub(super) trait Details: Clone + Serialize + DeserializeOwned + Send + 'static {
    /// Address of the member.
    fn at(&self) -> Endpoint;

    /// True if they are those of the message's origin: a member speaks for itself only.
    fn are_of(&self, message: &Message) -> bool;
}

/// Announcement of a member on the topic.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Announcement<I, D> {
    /// Id of the sender.
    pub(super) node_id: I,
    /// Address of the sender, and what else the group needs.
    #[serde(flatten)]
    pub(super) details: D,
    /// True if the sender looks for the group; else it is one of its members.
    #[serde(default)]
    pub(super) seeks: bool,
}

/// State of the search for the group, for people.
pub(super) enum Notice<I> {
    /// The fleet has not let this member in yet; the search begins when it has.
    NotAdmitted,
    /// No member of the fleet is in reach yet.
    Alone,
    /// There is no group yet; this member is to found it.
    Waits(I),
}

/// Outcome of the search for the group.
pub(super) enum Sought {
    /// The group has members at these addresses.
    Join(Vec<Endpoint>),
    /// There is none, and this member is to found it.
    Found,
    /// The search was ended.
    Stopped,
}

/// Reply to an announcement of another member.
pub(super) enum AnnouncementReply {
    /// This member announces itself.
    Announce,
    /// There is nothing to say.
    Nothing,
    /// The group's engine has stopped: no more announcements are taken.
    Stop,
}

/// Voice of a member on the topic.
#[derive(Clone)]
pub(super) struct Announcer<I, D> {
    pub(super) network: Arc<Network>,
    topic: &'static str,
    pub(super) me: Announcement<I, D>,
}

impl<I: Id, D: Details> Announcer<I, D> {
    /// Announces this member; with `seeks`, as one that looks for the group. False if it is no
    /// member of the fleet now: members that come later ask.
    pub(super) fn announce(&self, seeks: bool) -> bool {
        let announcement = Announcement { seeks, ..self.me.clone() };
        serde_json::to_vec(&announcement)
            .is_ok_and(|text| self.network.broadcast(self.topic, text).is_ok())
    }

    /// The announcement in a message, if it is another member's about itself.
    fn read(&self, message: &Message) -> Option<Announcement<I, D>> {
        let other: Announcement<I, D> = serde_json::from_slice(&message.data).ok()?;
        (other.details.are_of(message) && other.node_id != self.me.node_id).then_some(other)
    }
}

/// Membership of this peer in a group.
pub(super) struct GroupMember<I, D> {
    announcer: Announcer<I, D>,
    heard: Arc<Queue<Message>>,
    threads: Vec<JoinHandle<()>>,
}

impl<I: Id, D: Details> GroupMember<I, D> {
    /// Begins to hear the announcements on `topic`.
    ///
    /// # Errors
    /// Fails if the network has stopped.
    pub(super) fn new(
        (topic, node_id, details): (&'static str, I, D),
        network: &Arc<Network>,
    ) -> Result<Self, NetworkError> {
        let heard = Arc::new(network.subscribe(topic)?);
        let me = Announcement { node_id, details, seeks: false };
        let announcer = Announcer { network: Arc::clone(network), topic, me };
        Ok(Self { announcer, heard, threads: Vec::new() })
    }

    /// Voice of this member, for a thread of its own.
    pub(super) fn announcer(&self) -> Announcer<I, D> {
        self.announcer.clone()
    }

    /// Looks for the group until it is found, or is this member's to found, or nobody wants it any
    /// more. `told` takes the state of the search.
    ///
    /// Nothing is founded before the fleet has admitted this member: until then it reaches none of
    /// the others, and each of several that start before their seeds would found a group of its
    /// own.
    pub(super) fn find_group(
        &self,
        mut told: impl FnMut(Notice<I>),
        goes_on: impl Fn() -> bool,
    ) -> Sought {
        let network = &self.announcer.network;
        let clock = Clock::start();
        let mut notice_at = Some(clock.now().mono.after(ADMISSION_USUAL));
        while network.status().state != "member" {
            if !goes_on() || self.heard.recv_timeout(LOOK) == Err(RecvError::Closed) {
                return Sought::Stopped;
            }
            if notice_at.is_some_and(|at| at <= clock.now().mono) {
                notice_at = None;
                told(Notice::NotAdmitted);
            }
        }
        let deadline = clock.now().mono.after(NEIGHBOR_MAX);
        while network.status().members_known > 0 && network.peers().is_empty() {
            if !goes_on() {
                return Sought::Stopped;
            }
            if deadline <= clock.now().mono {
                told(Notice::Alone);
                break;
            }
            // An error is a state that is not reached yet, which the next look tells, too.
            let _ = network.wait_for_peers(1, LOOK);
        }
        let mut search = Bootstrap::new(self.announcer.me.node_id.clone(), clock.now().mono);
        loop {
            for output in search.on_time(clock.now().mono) {
                match output {
                    Output::Ask => drop(self.announcer.announce(true)),
                    Output::Wait(lowest) => told(Notice::Waits(lowest)),
                    Output::Join(places) => return Sought::Join(places),
                    Output::Found => return Sought::Found,
                }
            }
            if !goes_on() {
                return Sought::Stopped;
            }
            let wait = search.wakes_at().since(clock.now().mono).min(LOOK);
            match self.heard.recv_timeout(wait) {
                Ok(message) => {
                    if let Some(other) = self.announcer.read(&message) {
                        search.on_heard(other.node_id, other.details.at(), other.seeks);
                    }
                }
                Err(RecvError::Missed(_) | RecvError::Missing { .. } | RecvError::Empty) => {}
                Err(RecvError::Closed) => return Sought::Stopped,
            }
        }
    }

    /// Begins the life in the group: announces this member, and passes the announcements of others
    /// to `attend`, until the network or the engine stops.
    ///
    /// # Errors
    /// Fails if no threads can be started.
    pub(super) fn serve(
        &mut self,
        name: &str,
        attend: impl Fn(&Announcement<I, D>) -> AnnouncementReply + Send + 'static,
    ) -> io::Result<()> {
        let (announcer, heard) = (self.announcer.clone(), Arc::clone(&self.heard));
        self.spawn(name, move || {
            loop {
                let message = match heard.recv() {
                    Ok(message) => message,
                    Err(RecvError::Missed(_) | RecvError::Missing { .. } | RecvError::Empty) => {
                        continue;
                    }
                    Err(RecvError::Closed) => return,
                };
                let Some(other) = announcer.read(&message) else { continue };
                // The seeds' certificate of a neighbor's end is sure to come here.
                announcer.network.add_peer(other.details.at());
                match attend(&other) {
                    AnnouncementReply::Announce => drop(announcer.announce(false)),
                    AnnouncementReply::Nothing => {}
                    AnnouncementReply::Stop => return,
                }
            }
        })?;
        self.announcer.announce(false);
        Ok(())
    }

    /// Starts a thread that ends when the network stops.
    ///
    /// # Errors
    /// Fails if it cannot be started.
    pub(super) fn spawn(
        &mut self,
        name: &str,
        work: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        self.threads.push(thread::spawn(name, work)?);
        Ok(())
    }

    /// Waits for the threads to end, after the network has stopped.
    pub(super) fn join(self) {
        for thread in self.threads {
            // The thread has panicked if this fails, and reported that itself.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::chat::entry::{HostPort, MemberId};

    #[test]
    fn an_announcement_is_one_flat_object() {
        let details = HostPort { host: [127, 0, 0, 1].into(), port: 6001 };
        let it = Announcement { node_id: MemberId(7), details, seeks: true };
        let text = r#"{"node_id":7,"host":"127.0.0.1","port":6001,"seeks":true}"#;
        assert_eq!(serde_json::to_string(&it).unwrap(), text);
        let text = r#"{"node_id":7,"host":"127.0.0.1","port":6001}"#;
        let it: Announcement<MemberId, HostPort> = serde_json::from_str(text).unwrap();
        assert!(!it.seeks && it.details == details);
    }
}
