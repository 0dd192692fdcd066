//! Questions to a seed about members, topology and proofs, and their answers.
//!
//! Answers are pages of bounded size; a page says whether there is more, and the next question
//! names the endpoint after which to go on. No question changes state.

use std::sync::Arc;

use super::{Authority, Fx, pages};
use crate::machine::LinkId;
use crate::model::entry::{MemberState, RegistryEntry};
use crate::model::statement::Removal;
use crate::proto::membership::{
    ExplainReq, ExplainResp, MemberLine, NodeLine, PeerListReq, PeerListResp, TopologyReq,
    TopologyResp,
};

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

impl Authority {
    /// Answers with a page of members.
    pub fn on_peer_list_req(&mut self, link: LinkId, request: &PeerListReq, fx: &mut Fx) {
        let is_wanted =
            |entry: &&RegistryEntry| request.ended || entry.status() == MemberState::Alive;
        let lists = &self.lists;
        let line = |entry: &RegistryEntry| {
            let RegistryEntry { subject, .. } = entry;
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
        let line = |entry: &RegistryEntry| NodeLine {
            endpoint: entry.subject.endpoint,
            neighbors: self.neighbors_of(entry.subject.endpoint).to_vec(),
        };
        let alive = |entry: &&RegistryEntry| entry.status() == MemberState::Alive;
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
        let length = |it: &RegistryEntry| {
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
fn explained(entry: &RegistryEntry) -> RegistryEntry {
    let removal = entry.removal.as_ref().map(|removal| {
        let mut confirmations = removal.evidence_about(&entry.subject);
        confirmations.truncate(EVIDENCE_MAX);
        Arc::new(Removal { confirmations, ..Removal::clone(removal) })
    });
    RegistryEntry { removal, ..entry.clone() }
}
