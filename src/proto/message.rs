//! Every message of the native dialect, in one table: flat JSON objects told apart by `type`.
//!
//! A row names a message, its payload, the least trust level of a sender, and the taker. From the
//! rows come [`Message`] and one enum for each taker, which its handler matches without a wildcard:
//! a new row does not compile until its takers handle it.
//!
//! `docs/PROTOCOL.md` states fields, duties and limits; `tests/golden/` holds the exact bytes.

use serde::{Deserialize, Serialize};

use super::broadcast::{Announce, Graft, Have, Lack, Part, PartReq, Prune, Publish, Receipt, Slow};
use super::direct::{DirectAck, DirectMsg, DirectPart, DirectPartReq};
use super::discovery::{FindNode, Found};
use super::gossip::{GossipDigest, GossipMsg};
use super::hello::{Bye, Hello, HelloAck, HelloProof};
use super::liveness::{DeadReport, Ping, Pong, SuspectReq};
use super::membership::{
    ExplainReq, ExplainResp, LinkHint, PeerListReq, PeerListResp, RegisterVote, SeedDeadVote,
    SeedDigest, SeedOrderVote, SeedSyncReq, SeedSyncResp, TopologyReq, TopologyResp,
};
use super::refusal::ErrorReply;
use crate::model::statement::{
    Admission, Ban, Confirmation, Leave, NeighborList, RegisterReq, Removal,
};

/// Greatest length of a text for people that is taken in, in bytes. Such texts are kept, logged and
/// passed on; a longer one is cut. Twice the length that an honest node writes.
const REASON_BYTES_MAX: usize = 1_024;

/// Trust in the other end of a link. Ordered: each level may do all the lower may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TrustLevel {
    /// Only the address is known.
    Stranger,
    /// The other end proved a key, but holds no certificate for it.
    Applicant,
    /// The other end proved the key of a certificate that is not known to have ended.
    Member,
    /// The other end proved the key of a configured seed.
    Seed,
}

/// Declares the messages, and sorts them by their takers.
macro_rules! messages {
    ($($(#[$doc:meta])* $name:literal: $kind:ident($payload:ty), $level:ident, $taker:ident;)*) => {
        /// A message of the native dialect, which is one line.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(tag = "type")]
        pub enum Message {
            $($(#[$doc])* #[serde(rename = $name)] $kind($payload),)*
        }

        impl Message {
            /// Name of the message in the `type` field.
            pub const fn name(&self) -> &'static str {
                match self {
                    $(Self::$kind(_) => $name,)*
                }
            }

            /// Returns the least trust level from which this message is taken.
            ///
            /// Proofs that every node can check (certificates, goodbyes) are still taken only from
            /// known nodes: a stranger may only introduce itself and ask public questions.
            pub const fn needs(&self) -> TrustLevel {
                match self {
                    $(Self::$kind(_) => TrustLevel::$level,)*
                }
            }
        }

        $(impl From<$payload> for Message {
            fn from(payload: $payload) -> Self {
                Self::$kind(payload)
            }
        })*

        takers! { [] [] [] [] [] $($taker $kind($payload);)* }
    };
}

/// Collects the rows of each taker, one row a step: session, seed, peer, direct, broadcast.
macro_rules! takers {
    ($a:tt [$($b:tt)*] [$($c:tt)*] $d:tt $e:tt nodes $kind:ident($it:ty); $($rest:tt)*) => {
        takers! { $a [$($b)* $kind($it),] [$($c)* $kind($it),] $d $e $($rest)* }
    };
    ([$($a:tt)*] $b:tt $c:tt $d:tt $e:tt session $kind:ident($it:ty); $($rest:tt)*) => {
        takers! { [$($a)* $kind($it),] $b $c $d $e $($rest)* }
    };
    ($a:tt [$($b:tt)*] $c:tt $d:tt $e:tt seeds $kind:ident($it:ty); $($rest:tt)*) => {
        takers! { $a [$($b)* $kind($it),] $c $d $e $($rest)* }
    };
    ($a:tt $b:tt [$($c:tt)*] $d:tt $e:tt peers $kind:ident($it:ty); $($rest:tt)*) => {
        takers! { $a $b [$($c)* $kind($it),] $d $e $($rest)* }
    };
    ($a:tt $b:tt $c:tt [$($d:tt)*] $e:tt direct $kind:ident($it:ty); $($rest:tt)*) => {
        takers! { $a $b $c [$($d)* $kind($it),] $e $($rest)* }
    };
    ($a:tt $b:tt $c:tt $d:tt [$($e:tt)*] broadcast $kind:ident($it:ty); $($rest:tt)*) => {
        takers! { $a $b $c $d [$($e)* $kind($it),] $($rest)* }
    };
    ($a:tt $b:tt $c:tt $d:tt $e:tt clients $kind:ident($it:ty); $($rest:tt)*) => {
        takers! { $a $b $c $d $e $($rest)* }
    };
    ($session:tt $seed:tt $peer:tt $direct:tt $broadcast:tt) => {
        taken! { "Messages that the session takes, of any role.", SessionMessage $session }
        taken! { "Messages that a seed takes.", SeedMessage $seed }
        taken! { "Messages that a peer takes, but for the two kinds below.", PeerMessage $peer }
        taken! { "Messages that a peer's direct sends take.", DirectMessage $direct }
        taken! { "Messages that a peer's broadcast takes.", BroadcastMessage $broadcast }
    };
}

/// Declares the messages of one taker.
macro_rules! taken {
    ($doc:literal, $taker:ident [$($kind:ident($payload:ty),)*]) => {
        #[doc = $doc]
        #[derive(Debug)]
        pub enum $taker {
            $(#[doc = concat!("See [`Message::", stringify!($kind), "`].")] $kind($payload),)*
        }

        impl TryFrom<Message> for $taker {
            /// The message, which has another taker.
            type Error = Message;

            #[allow(
                clippy::result_large_err,
                clippy::wildcard_enum_match_arm,
                reason = "what one taker does not take is handed on to the next"
            )]
            fn try_from(msg: Message) -> Result<Self, Message> {
                match msg {
                    $(Message::$kind(payload) => Ok(Self::$kind(payload)),)*
                    other => Err(other),
                }
            }
        }
    };
}

// Takers: the session; seeds, peers, or both (nodes); of a peer, its direct sends or its broadcast;
// clients, which are programs that question a seed.
messages! {
    // name: message(payload), trust level, taker
    /// The caller's node info, and a challenge for the called node.
    "HELLO": Hello(Hello), Stranger, session;
    /// The called node's info, its answer to the challenge, and a challenge for the caller.
    "HELLO_ACK": HelloAck(HelloAck), Stranger, session;
    /// The caller's answer to the challenge; the link is open.
    "HELLO_PROOF": HelloProof(HelloProof), Stranger, session;
    /// This link ends by intent; its sender lives on.
    "BYE": Bye(Bye), Stranger, session;
    /// A refusal with its reason.
    "ERROR": Error(ErrorReply), Stranger, session;

    /// A request to be admitted.
    "REGISTER_REQ": RegisterReq(RegisterReq), Applicant, seeds;
    /// A seed's yes or no to an applicant.
    "REGISTER_VOTE": RegisterVote(RegisterVote), Seed, nodes;
    /// The proof that an applicant was admitted.
    "REGISTER_COMMIT": RegisterCommit(Admission), Member, nodes;
    /// A request for a page of members.
    "PEER_LIST_REQ": PeerListReq(PeerListReq), Stranger, seeds;
    /// A page of members.
    "PEER_LIST_RESP": PeerListResp(PeerListResp), Seed, peers;

    /// One gossip message on its way.
    "GOSSIP_MSG": GossipMsg(GossipMsg), Member, peers;
    /// A digest of the messages that the sender has seen lately, to get the rest.
    "GOSSIP_DIGEST": GossipDigest(GossipDigest), Member, peers;

    /// A request for a sign of life.
    "PING": Ping(Ping), Applicant, nodes;
    /// The answer to a ping.
    "PONG": Pong(Pong), Applicant, nodes;
    /// The sender's present neighbors.
    "NEIGHBORS": Neighbors(NeighborList), Member, nodes;
    /// A request to probe a neighbor that does not answer the sender, and to testify.
    "SUSPECT_REQ": SuspectReq(SuspectReq), Member, nodes;
    /// The finding of the sender's own fresh probe.
    "SUSPECT_ACK": SuspectAck(Confirmation), Member, nodes;
    /// A report that a majority of a member's neighbors found it dead.
    "DEAD_REPORT": DeadReport(DeadReport), Member, seeds;
    /// A seed's yes or no to a removal.
    "SEED_DEAD_VOTE": SeedDeadVote(SeedDeadVote), Seed, nodes;
    /// The proof that a member was removed.
    "SEED_DEAD_COMMIT": SeedDeadCommit(Removal), Member, nodes;
    /// A seed's vote by order of its operator, to evict a member or ban an endpoint.
    "SEED_ORDER_VOTE": SeedOrderVote(SeedOrderVote), Seed, seeds;
    /// The proof of a ban, or of its lifting.
    "SEED_BAN_COMMIT": SeedBanCommit(Ban), Seed, seeds;
    /// A member's goodbye.
    "LEAVE": Leave(Leave), Applicant, nodes;

    /// A message for the application of the other end.
    "DIRECT": Direct(DirectMsg), Member, direct;
    /// The verdict on a direct message.
    "DIRECT_ACK": DirectAck(DirectAck), Member, direct;
    /// A request for parts of a direct message's data.
    "DIRECT_PART_REQ": DirectPartReq(DirectPartReq), Member, direct;
    /// One part of a direct message's data.
    "DIRECT_PART": DirectPart(DirectPart), Member, direct;

    /// A question for the known contacts that are closest to an id.
    "FIND_NODE": FindNode(FindNode), Member, peers;
    /// The closest contacts, in answer to a question.
    "FOUND": Found(Found), Member, peers;

    /// A broadcast message of a member on its way to all.
    "PUBLISH": Publish(Publish), Member, broadcast;
    /// An announcement of broadcast messages that the sender holds.
    "ANNOUNCE": Announce(Announce), Member, broadcast;
    /// A request for broadcast messages.
    "GRAFT": Graft(Graft), Member, broadcast;
    /// A request to announce messages instead of pushing them.
    "PRUNE": Prune(Prune), Member, broadcast;
    /// A request for parts of a large broadcast message.
    "PART_REQ": PartReq(PartReq), Member, broadcast;
    /// A part of a large broadcast message.
    "PART": Part(Part), Member, broadcast;
    /// The number of nodes that have a broadcast message by way of the sender.
    "RECEIPT": Receipt(Receipt), Member, broadcast;
    /// The numbers of the broadcast messages that the sender has.
    "HAVE": Have(Have), Member, broadcast;
    /// A request to announce the broadcast messages with these numbers.
    "LACK": Lack(Lack), Member, broadcast;
    /// A request to wait for a node that is slower than the origin's messages.
    "SLOW": Slow(Slow), Member, broadcast;

    /// The state of the sender's registry, in hashes.
    "SEED_DIGEST": SeedDigest(SeedDigest), Seed, seeds;
    /// A request for parts of the receiver's registry.
    "SEED_SYNC_REQ": SeedSyncReq(SeedSyncReq), Seed, seeds;
    /// Parts of the sender's registry.
    "SEED_SYNC_RESP": SeedSyncResp(SeedSyncResp), Seed, seeds;
    /// Advice to link to a member, because the receiver's part of the overlay is cut off.
    "LINK_HINT": LinkHint(LinkHint), Seed, peers;

    /// A request for the reasons why an endpoint is a member or is not.
    "EXPLAIN_REQ": ExplainReq(ExplainReq), Stranger, seeds;
    /// The certificates of an endpoint.
    "EXPLAIN_RESP": ExplainResp(ExplainResp), Seed, peers;
    /// A request for a page of neighbor lists.
    "TOPOLOGY_REQ": TopologyReq(TopologyReq), Stranger, seeds;
    /// A page of neighbor lists.
    "TOPOLOGY_RESP": TopologyResp(TopologyResp), Seed, clients;
}

impl Message {
    /// Cuts the message's text for people, if it has one, to 1,024 bytes.
    pub fn shorten_reason(&mut self) {
        let reason = if let Self::Bye(Bye { reason })
        | Self::Error(ErrorReply { reason, .. })
        | Self::RegisterVote(RegisterVote { reason, .. })
        | Self::SeedDeadVote(SeedDeadVote { reason, .. })
        | Self::DirectAck(DirectAck { reason, .. }) = self
        {
            reason
        } else {
            return;
        };
        if reason.len() > REASON_BYTES_MAX {
            let is_end = |at: &usize| reason.is_char_boundary(*at);
            let end = (0..=REASON_BYTES_MAX).rev().find(is_end).unwrap_or(0);
            reason.truncate(end);
            reason.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names of the messages of the golden file, which has all, with this trust level.
    fn taken_from(level: TrustLevel) -> Vec<&'static str> {
        let lines = include_str!("../../tests/golden/native.jsonl").lines();
        let messages = lines.map(|line| serde_json::from_str::<Message>(line).unwrap());
        let mut names: Vec<_> =
            messages.filter(|it| it.needs() == level).map(|it| it.name()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    #[test]
    fn strangers_introduce_themselves_and_ask_applicants_register_and_seeds_vote() {
        let strangers = "BYE ERROR EXPLAIN_REQ HELLO HELLO_ACK HELLO_PROOF PEER_LIST_REQ \
                         TOPOLOGY_REQ";
        assert_eq!(taken_from(TrustLevel::Stranger).join(" "), strangers);
        assert_eq!(taken_from(TrustLevel::Applicant).join(" "), "LEAVE PING PONG REGISTER_REQ");
        let seeds = "EXPLAIN_RESP LINK_HINT PEER_LIST_RESP REGISTER_VOTE SEED_BAN_COMMIT \
                     SEED_DEAD_VOTE SEED_DIGEST SEED_ORDER_VOTE SEED_SYNC_REQ SEED_SYNC_RESP \
                     TOPOLOGY_RESP";
        assert_eq!(taken_from(TrustLevel::Seed).join(" "), seeds);
    }
}
