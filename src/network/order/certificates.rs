//! Certificates of the seeds in an order: the history of the fleet's membership gets places, and
//! proofs of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::OrderedLog;
use super::entry::{CERTIFICATE, Place};
use crate::model::statement::{MemberInstance, ProposalKind, SeedCertificate};
use crate::network::error::StartError;
use crate::network::peer::Network;
use crate::proto::chat::entry::Body;
use crate::runtime::clock::Clock;
use crate::runtime::thread;

/// Interval of the looks at what this peer has learnt.
const LOOK: Duration = Duration::from_secs(1);

/// Time that a member leaves to each one before it in the roster, so that few say the same.
const TURN: Duration = Duration::from_secs(3);

/// Number of changes that are remembered to be in the log.
const KNOWN_MAX: usize = 65_536;

type Change = (ProposalKind, Vec<MemberInstance>);

impl Network {
    /// True if a quorum of the seeds that this peer lists has signed the certificate.
    #[doc(hidden)]
    pub fn certifies(&self, it: &SeedCertificate) -> bool {
        self.peer.driver.inspect(|node, _| {
            let book = node.applicant().book();
            let verdict = match it {
                SeedCertificate::Admission(it) => book.verify_admission(it),
                SeedCertificate::Removal(it) => book.verify_removal(it),
            };
            verdict.is_ok()
        })
    }
}

impl OrderedLog {
    /// Puts each certificate of the seeds that this peer learns into the order, unless it is there,
    /// until the member stops.
    ///
    /// # Errors
    /// Fails if the system has no room for a thread.
    #[doc(hidden)]
    pub fn keep_certificates(log: &Arc<Self>, network: &Arc<Network>) -> Result<(), StartError> {
        let (log, network) = (Arc::downgrade(log), Arc::clone(network));
        thread::spawn("order-seeds", move || keep(&log, &network))?;
        Ok(())
    }
}

fn keep(log: &Weak<OrderedLog>, network: &Network) {
    let clock = Clock::start();
    let Some(mut entries) = log.upgrade().map(|it| it.follow(Place(1))) else { return };
    let mut known: BTreeSet<Change> = BTreeSet::new();
    let mut since = BTreeMap::new();
    loop {
        let Some(log) = log.upgrade() else { return };
        let Some(status) = log.machine_status() else { return };
        while let Some(entry) = entries.next_ready() {
            if let Body::Chat(chat) = &entry.body
                && &*chat.room_id == CERTIFICATE
                && let Ok(it) = serde_json::from_str::<SeedCertificate>(&chat.payload)
                && network.certifies(&it)
            {
                known.insert(it.change());
            }
        }
        let turn = status.members.iter().position(|it| it.member.id == status.me);
        let patience = TURN * u32::try_from(turn.unwrap_or_default()).unwrap_or_default();
        let held: Vec<_> = network.peer.driver.inspect(|node, _| node.certificates().collect());
        let now = clock.now().mono;
        for it in held {
            let change = it.change();
            if known.contains(&change) {
                continue;
            }
            let first = *since.entry(change.clone()).or_insert(now);
            if now.since(first) < patience {
                continue;
            }
            // The votes decide; the evidence is for people, and may be longer than a text.
            let it = match it {
                SeedCertificate::Removal(it) => {
                    SeedCertificate::Removal(Arc::new(it.with_evidence(0)))
                }
                it @ SeedCertificate::Admission(_) => it,
            };
            if let Ok(text) = serde_json::to_string(&it) {
                log.append(CERTIFICATE, text);
            }
            known.insert(change);
        }
        since.retain(|change, _| !known.contains(change));
        while known.len() > KNOWN_MAX {
            known.pop_first();
        }
        drop(log);
        // Never sent to: its only end is the time.
        let _ = crossbeam_channel::after(LOOK).recv();
    }
}
