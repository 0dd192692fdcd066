//! Questions to a seed about members, topology and proofs, and their answers.
//!
//! Answers are pages of bounded size; a page says whether there is more, and the next question
//! names the endpoint after which to go on. No question changes state.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Authority, Fx, pages};
use crate::machine::LinkId;
use crate::machine::membership::certificate::Removal;
use crate::machine::membership::registry::{Entry, Status};
use crate::model::{Endpoint, Incarnation, SeedId, WallTime};

/// Number of members in one page; below a quarter of a line's limit.
const MEMBERS_PER_PAGE: usize = 400;

/// Number of members in a sample of more than one page. A peer seeks three neighbors and asks two
/// seeds or more, each minute again, so it chooses among several times as many as that; whole lists
/// would cost each peer more the larger the fleet is, and the seeds that times the fleet. Links
/// still go to members in proportion to their degrees: each is as likely as any other to be in a
/// sample, and within it they are chosen by degree.
const SAMPLE_SIZE: usize = 128;

/// Greatest number of neighbor lists in one page; a page of hubs ends where its line is full.
const NODES_PER_PAGE: usize = 32;

/// Number of findings about each life in one explanation.
const EVIDENCE_MAX: usize = 32;

/// A request for a page of members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerListReq {
    /// Last endpoint of the previous page; the first page is asked for without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Endpoint>,
    /// True if members that left or were removed lately are wanted too.
    #[serde(default)]
    pub ended: bool,
    /// True if a sample is enough: of more members than fit one page, some drawn at random.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sample: bool,
}

impl PeerListReq {
    /// The request of a peer that looks for neighbors.
    pub const SAMPLE: Self = Self { after: None, ended: false, sample: true };
}

/// One member in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberLine {
    /// Address on which the member listens.
    pub endpoint: Endpoint,
    /// Incarnation of the member's life.
    pub incarnation: Incarnation,
    /// Status of the member.
    pub status: Status,
    /// Time since which the status holds, by the clocks of the deciding nodes.
    pub since: WallTime,
    /// Number of neighbors that the member named last.
    pub degree: u32,
}

/// A page of members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerListResp {
    /// Seed that answers.
    pub seed: SeedId,
    /// Members, ascending by endpoint.
    pub members: Vec<MemberLine>,
    /// True if there are more after the last one.
    pub more: bool,
}

/// A request for the reasons why an endpoint is a member or is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainReq {
    /// Endpoint in question.
    pub endpoint: Endpoint,
}

/// The proofs about an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainResp {
    /// Seed that answers.
    pub seed: SeedId,
    /// Endpoint in question.
    pub endpoint: Endpoint,
    /// Lives of the endpoint, the latest last, at most five.
    pub lives: Vec<Entry>,
    /// Open votes about the endpoint, in words.
    pub open: Vec<String>,
}

/// A request for a page of neighbor lists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopologyReq {
    /// Last endpoint of the previous page; the first page is asked for without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Endpoint>,
}

/// A page of neighbor lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopologyResp {
    /// Seed that answers.
    pub seed: SeedId,
    /// Members and their neighbors, ascending by endpoint.
    pub nodes: Vec<NodeLine>,
    /// True if there are more after the last one.
    pub more: bool,
}

/// One member's neighbors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeLine {
    /// Endpoint of the member.
    pub endpoint: Endpoint,
    /// Neighbors that the member named last.
    pub neighbors: Vec<Endpoint>,
}

impl Authority {
    /// Answers with a page of members.
    pub fn on_peer_list_req(&mut self, link: LinkId, request: &PeerListReq, fx: &mut Fx) {
        let is_wanted = |entry: &&Entry| request.ended || entry.status() == Status::Alive;
        let lists = &self.lists;
        let line = |entry: &Entry| {
            let Entry { subject, .. } = entry;
            let degree = lists.get(&subject.endpoint).map_or(0, |list| list.neighbors.len());
            MemberLine {
                endpoint: subject.endpoint,
                incarnation: subject.incarnation,
                status: entry.status(),
                since: entry.since(),
                degree: u32::try_from(degree).unwrap_or(u32::MAX),
            }
        };
        if request.sample && self.registry.alive_count() > MEMBERS_PER_PAGE {
            let drawn = self.registry.sample(SAMPLE_SIZE, &mut self.rng);
            let members = drawn.into_iter().map(line).collect();
            return fx.send(link, PeerListResp { seed: self.me, members, more: false });
        }
        let mut rest = self.registry.entries_after(request.after).filter(is_wanted).map(line);
        let members: Vec<_> = rest.by_ref().take(MEMBERS_PER_PAGE).collect();
        let more = rest.next().is_some();
        fx.send(link, PeerListResp { seed: self.me, members, more });
    }

    /// Answers with a page of neighbor lists.
    pub fn on_topology_req(&self, link: LinkId, request: &TopologyReq, fx: &mut Fx) {
        let line = |entry: &Entry| NodeLine {
            endpoint: entry.subject.endpoint,
            neighbors: self.neighbors_of(entry.subject.endpoint).to_vec(),
        };
        let alive = |entry: &&Entry| entry.status() == Status::Alive;
        let rest = self.registry.entries_after(request.after).filter(alive).map(line);
        let mut nodes: Vec<_> = rest.take(NODES_PER_PAGE + 1).collect();
        let length = |it: &NodeLine| (it.endpoint, (it.neighbors.len() + 2) * pages::ENDPOINT);
        let last = nodes.get(NODES_PER_PAGE).map(|_| nodes[NODES_PER_PAGE - 1].endpoint);
        let full = pages::end_of(nodes.iter().map(length).collect());
        let end = last.into_iter().chain(full).min();
        nodes.retain(|node| end.is_none_or(|end| node.endpoint <= end));
        let more = end.is_some();
        fx.send(link, TopologyResp { seed: self.me, nodes, more });
    }

    /// Answers with everything that is proved about an endpoint.
    pub fn on_explain_req(&self, link: LinkId, request: ExplainReq, fx: &mut Fx) {
        let ExplainReq { endpoint } = request;
        let past = self.registry.past(endpoint).iter();
        let mut lives: Vec<_> = past.chain(self.registry.get(endpoint)).map(explained).collect();
        let length = |it: &Entry| {
            pages::of_entry(it) + it.removal.as_ref().map_or(0, |it| pages::of_removal(it))
        };
        // The oldest lives are left out where there is no room for all.
        while lives.len() > 1 && lives.iter().map(length).sum::<usize>() > pages::ROOM {
            lives.remove(0);
        }
        let admissions = self.admissions.keys().filter(|it| it.endpoint == endpoint);
        let removals = self.removals.keys().filter(|it| it.endpoint == endpoint);
        let (connected, needed) = (self.connected(), self.book.quorum());
        let frozen = if connected < needed {
            format!(
                ", but there is no quorum: {connected} of {needed} needed seeds in reach; \
                 membership is frozen until enough are back"
            )
        } else {
            String::new()
        };
        let open =
            admissions
                .map(|it| format!("admission of incarnation {} is being voted on", it.incarnation))
                .chain(removals.map(|it| {
                    format!("removal of incarnation {} is being voted on", it.incarnation)
                }))
                .map(|it| it + &frozen)
                .collect();
        fx.send(link, ExplainResp { seed: self.me, endpoint, lives, open });
    }
}

/// Returns the entry with the evidence about its own life only, at most [`EVIDENCE_MAX`] findings.
fn explained(entry: &Entry) -> Entry {
    let removal = entry.removal.as_ref().map(|removal| {
        let mut confirmations = removal.evidence_about(&entry.subject);
        confirmations.truncate(EVIDENCE_MAX);
        Arc::new(Removal { confirmations, ..Removal::clone(removal) })
    });
    Entry { removal, ..entry.clone() }
}
