//! Members that lie, played by threads of this process with the members' keys.
//!
//! A liar calls every honest member. For each slot that it hears of, it signs two votes of each
//! phase that exclude each other, and sends both to all, to one half in the other order; it signs
//! two bundles with the same numbers, of which each half gets one, so that half of the members has
//! to fetch what is placed; and it sends a bundle that can never have a place. It leads nobody, and
//! answers nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::part::pause;
use crate::cli::CliError;
use crate::model::KeyPair;
use crate::proto::bft::message::Message;
use crate::proto::bft::{
    Bundle, BundleItem, ContentDigest, OrderId, PhaseVote, SlotNo, VotePhase, VoteSubject,
};
use crate::proto::chat::entry::{MemberId, Origin};
use crate::runtime::files::os_rng;
use crate::runtime::order::client::OrderClient;
use crate::runtime::thread;

/// Longest time for a connection to come about.
const CALL: Duration = Duration::from_secs(2);

/// Pause before the next call of a member that did not answer, or hung up.
const AGAIN: Duration = Duration::from_millis(200);

/// Number of messages in a liar's bundle: it fits behind those of so many slots before.
const OVERLAP: u64 = 8;

/// Client numbers of a liar's two numberings: one that can be placed, and one that begins late.
const CLIENT: u64 = 1 << 20;

/// The threads of all liars, which end with [`Self::stop`] and the members' processes.
#[derive(Default)]
pub(super) struct Liars {
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// A liar, as one of its threads knows it.
struct Liar {
    me: MemberId,
    keys: KeyPair,
    group: OrderId,
    /// The half of the members to which the called one belongs.
    is_odd: bool,
    /// Greatest slot that was lied about.
    last: SlotNo,
    bytes: usize,
}

impl Liars {
    /// Lets a member lie to the honest ones at these addresses, in messages of so many bytes.
    pub(super) fn add(
        &mut self,
        group: OrderId,
        (me, keys): (u32, &KeyPair),
        honest: &[SocketAddr],
        bytes: usize,
    ) -> Result<(), CliError> {
        for (index, at) in honest.iter().copied().enumerate() {
            let is_over = Arc::clone(&self.is_over);
            let mut liar = Liar {
                me: MemberId(me),
                keys: KeyPair::from_secret(keys.secret_bytes()),
                group,
                is_odd: index % 2 == 1,
                last: SlotNo(0),
                bytes,
            };
            let thread = thread::spawn("liar", move || {
                while !is_over.load(Ordering::Relaxed) {
                    // Every failure is a connection that has ended, and is made anew.
                    let _ = liar.lie_to(at);
                    pause(AGAIN);
                }
            });
            let failed = |source| CliError::System { action: "start a thread", source };
            self.threads.push(thread.map_err(failed)?);
        }
        Ok(())
    }

    /// Lets the threads end; they do once no member is connected any more.
    pub(super) fn stop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A liar that has failed is no liar any more, which changes no figure for the worse.
            let _ = thread.join();
        }
    }
}

impl Liar {
    fn lie_to(&mut self, at: SocketAddr) -> std::io::Result<()> {
        let mut rng = os_rng().map_err(std::io::Error::other)?;
        let me = (self.me, &self.keys);
        let mut client = OrderClient::connect(at, self.group, me, &mut rng, CALL)?;
        loop {
            let message = client.hear()?;
            let subject = if let Message::PrePrepare(it) = &message {
                Some(it.vote(it.header.digest(&self.group)).subject)
            } else if let Message::Prepare(vote) | Message::Commit(vote) = &message {
                Some(vote.subject)
            } else {
                None
            };
            if let Some(subject) = subject
                && subject.slot > self.last
            {
                self.last = subject.slot;
                for lie in self.lies(subject) {
                    client.send(&lie)?;
                }
            }
        }
    }

    /// Lies about a slot.
    fn lies(&self, subject: VoteSubject) -> Vec<Message> {
        let other = VoteSubject { digest: ContentDigest([0xbb; 32]), ..subject };
        let mut subjects = [subject, other];
        if self.is_odd {
            subjects.reverse();
        }
        let sign =
            |phase, subject| PhaseVote::sign(&self.group, phase, subject, (self.me, &self.keys));
        let mut lies: Vec<_> = subjects
            .into_iter()
            .flat_map(|it| {
                let (prepare, commit) = (VotePhase::Prepare, VotePhase::Commit);
                [Message::Prepare(sign(prepare, it)), Message::Commit(sign(commit, it))]
            })
            .collect();
        let first = subject.slot.0.saturating_sub(OVERLAP - 1).max(1);
        lies.push(self.bundle(CLIENT, first, subject.slot.0 - first + 1));
        lies.push(self.bundle(CLIENT + 1, subject.slot.0 + 1, 1));
        lies
    }

    fn bundle(&self, client: u64, first: u64, count: u64) -> Message {
        let letter = if self.is_odd { "b" } else { "a" };
        let payload: Arc<str> = letter.repeat(self.bytes).into();
        let item = || BundleItem { room: "text".into(), payload: Arc::clone(&payload) };
        let items = (0..count).map(|_| item()).collect();
        let origin = Origin { member: self.me, client };
        Message::Bundle(Arc::new(Bundle::sign(&self.group, origin, first, items, &self.keys)))
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;
    use crate::model::Rng;
    use crate::proto::bft::{EpochNo, Equivocation, ViewNo};

    #[test]
    fn votes_of_a_liar_exclude_each_other_and_its_bundles_differ_by_half() {
        let keys = KeyPair::generate(&mut Rng::seed_from_u64(1));
        let liar = |is_odd| Liar {
            me: MemberId(4),
            keys: KeyPair::from_secret(keys.secret_bytes()),
            group: OrderId([1; 32]),
            is_odd,
            last: SlotNo(0),
            bytes: 16,
        };
        let (epoch, view, slot) = (EpochNo(0), ViewNo(0), SlotNo(20));
        let subject = VoteSubject { epoch, view, slot, digest: ContentDigest([0xaa; 32]) };
        let (even, odd) = (liar(false).lies(subject), liar(true).lies(subject));
        let votes = |lies: &[Message]| -> Vec<_> {
            let vote = |it: &Message| if let Message::Prepare(it) = it { Some(*it) } else { None };
            lies.iter().filter_map(vote).collect()
        };
        for lies in [&even, &odd] {
            let [first, second] = votes(lies)[..] else { panic!("two votes") };
            let lie = Equivocation::Votes { phase: VotePhase::Prepare, first, second };
            assert!(lie.is_valid(&OrderId([1; 32]), &keys.public()));
        }
        assert_eq!(votes(&even)[0], votes(&odd)[1], "in the other order");
        let placed = |lies: &[Message]| {
            let bundle = |it: &Message| {
                if let Message::Bundle(it) = it { Some(Arc::clone(it)) } else { None }
            };
            let mut bundles = lies.iter().filter_map(bundle);
            bundles.find(|it| it.client == CLIENT).expect("there is one")
        };
        let (one, two) = (placed(&even), placed(&odd));
        assert_eq!((one.first, one.last()), (two.first, two.last()));
        assert_ne!(one.items, two.items);
    }
}
