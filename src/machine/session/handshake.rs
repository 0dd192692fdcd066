//! Objections of a node to the node info of the other end of a connection.

use crate::proto::hello::NodeInfo;

/// The reason why the owner of the `own` info does not talk with the owner of `info`.
pub(super) fn objection(info: &NodeInfo, own: &NodeInfo) -> Option<String> {
    info.excess().or_else(|| own_key_objection(info, own)).or_else(|| fleet_objection(info, own))
}

/// The objection to a node of another fleet: two fleets stay two, also when an address of one
/// is given to a node of the other.
pub(super) fn fleet_objection(info: &NodeInfo, own: &NodeInfo) -> Option<String> {
    let (theirs, ours) = (info.fleet.as_ref()?, own.fleet.as_ref()?);
    (theirs != ours).then(|| {
        format!(
            "{} belongs to the fleet {theirs:?}, {} to {ours:?}; --fleet NAME says to which",
            info.endpoint, own.endpoint
        )
    })
}

/// The objection to a caller's node info that shows the key of the `own` info: the caller is this
/// node itself, or one of the two is a seed, which its key has to name. Two peers with one key
/// are two members.
fn own_key_objection(info: &NodeInfo, own: &NodeInfo) -> Option<String> {
    if info.key != own.key {
        return None;
    }
    let (here, there) = (own.endpoint, info.endpoint);
    if here == there {
        return Some("this is my own key: you called yourself".to_owned());
    }
    (info.seed.is_some() || own.seed.is_some()).then(|| {
        format!(
            "{here} and {there} have the same key: the data directory of one is a copy of the \
             other's; stop one of the two, delete its identity.key and start it again"
        )
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rand::SeedableRng as _;

    use super::super::{CallError, Config, Event, Session};
    use super::*;
    use crate::machine::{DialId, Effect, Effects, LinkId, NodeCall, PingHost};
    use crate::model::statement::MemberInstance;
    use crate::model::{Binding, Endpoint, Incarnation, KeyPair, Rng};
    use crate::proto::hello::Intent;
    use crate::proto::message::{Message, TrustLevel};
    use crate::proto::refusal::{ErrorCode, ErrorReply};

    fn session(number: u8) -> Session {
        let keys = KeyPair::from_secret([number; 32]);
        let info = NodeInfo::new(MemberInstance {
            endpoint: Endpoint::new([127, 0, 0, 1].into(), u16::from(number)),
            incarnation: Incarnation(1),
            key: keys.public(),
        });
        Session::new(Config::default(), keys, info, Rng::seed_from_u64(number.into()))
    }

    fn sent(fx: &mut Effects<Session>) -> (Option<Message>, Vec<Event>) {
        let (mut msg, mut events) = (None, Vec::new());
        for effect in fx.drain() {
            match effect {
                Effect::Send { msg: it, .. } => msg = Some(it),
                Effect::Emit(event) => events.push(event),
                Effect::Dial(NodeCall { .. })
                | Effect::SendAll { .. }
                | Effect::Hangup { .. }
                | Effect::Extra(PingHost { .. })
                | Effect::SetTimer { .. }
                | Effect::StopTimer(_)
                | Effect::Persist(_) => {}
            }
        }
        (msg, events)
    }

    /// Runs a handshake between two sessions over connections with the given bindings; returns the
    /// events of the caller and of the called node.
    fn shake(near: Option<Binding>, far: Option<Binding>) -> (Vec<Event>, Vec<Event>) {
        let (mut caller, mut called) = (session(1), session(2));
        let (to, link) = (called.info().endpoint, LinkId(1));
        let mut fx = Effects::default();
        caller.call(to, Intent::Link, Duration::from_secs(1), &mut fx);
        called.on_accepted(link, to.ip(), far, &mut Effects::default());
        caller.on_dialed(DialId(1), link, near, &mut fx);
        called.on_received(link, sent(&mut fx).0.unwrap(), &mut fx);
        caller.on_received(link, sent(&mut fx).0.unwrap(), &mut fx);
        let (proof, near) = sent(&mut fx);
        let Some(proof) = proof else { return (near, Vec::new()) };
        called.on_received(link, proof, &mut fx);
        (near, sent(&mut fx).1)
    }

    #[test]
    fn a_caller_that_is_crowded_out_is_told_so_and_does_not_count_as_refused() {
        let (mut caller, mut called) = (session(1), session(2));
        called.config.unproven_max = 1;
        let (to, mut fx) = (called.info().endpoint, Effects::default());
        caller.call(to, Intent::Probe, Duration::from_secs(1), &mut fx);
        called.on_accepted(LinkId(1), to.ip(), None, &mut Effects::default());
        caller.on_dialed(DialId(1), LinkId(1), None, &mut Effects::default());
        called.on_accepted(LinkId(2), to.ip(), None, &mut fx);
        let busy = sent(&mut fx).0.unwrap();
        caller.on_received(LinkId(1), busy, &mut fx);
        let (_, events) = sent(&mut fx);
        let is_no_room = matches!(&events[..], [Event::Failed { error: CallError::NoRoom(why), .. }]
            if why.contains("too many connections"));
        assert!(is_no_room, "{events:?}");
    }

    #[test]
    fn a_refusal_outside_of_a_call_is_told_to_the_node() {
        let (mut called, link, mut fx) = (session(2), LinkId(1), Effects::default());
        called.on_accepted(link, [127, 0, 0, 1].into(), None, &mut Effects::default());
        called.on_received(link, ErrorReply::new(ErrorCode::Busy, "later").into(), &mut fx);
        let events = sent(&mut fx).1;
        let [Event::Error { error, .. }] = &events[..] else { panic!("{events:?}") };
        assert_eq!(error.code, ErrorCode::Busy);
    }

    #[test]
    fn both_ends_of_one_connection_believe_each_other() {
        for binding in [None, Some(Binding([7; 32]))] {
            let (near, far) = shake(binding, binding);
            assert!(matches!(near[..], [Event::Opened { dialed: true, .. }]), "{near:?}");
            assert!(matches!(far[..], [Event::Opened { dialed: false, .. }]), "{far:?}");
        }
    }

    /// Lets one call the other for a query. Returns true if the query is served.
    fn takes_query(caller: &mut Session, called: &mut Session, number: u64) -> bool {
        errand_from([127, 0, 0, 1], caller, called, number)
    }

    fn errand_from(from: [u8; 4], caller: &mut Session, called: &mut Session, number: u64) -> bool {
        let (to, link, mut fx) = (called.info().endpoint, LinkId(number), Effects::default());
        caller.call(to, Intent::Errand, Duration::from_secs(1), &mut fx);
        called.on_accepted(link, from.into(), None, &mut Effects::default());
        let dialed = fx.drain().find_map(|effect| {
            let Effect::Dial(NodeCall { ticket, .. }) = effect else { return None };
            Some(ticket)
        });
        caller.on_dialed(dialed.unwrap(), link, None, &mut fx);
        called.on_received(link, sent(&mut fx).0.unwrap(), &mut fx);
        caller.on_received(link, sent(&mut fx).0.unwrap(), &mut fx);
        called.on_received(link, sent(&mut fx).0.unwrap(), &mut fx);
        sent(&mut fx).1.iter().any(|it| matches!(it, Event::Opened { .. }))
    }

    #[test]
    fn errands_are_counted_by_the_key_and_not_by_the_endpoint_that_is_claimed() {
        let (mut honest, mut called, mut liar) = (session(1), session(2), session(3));
        liar.info_mut().endpoint = honest.info().endpoint;
        assert!((1..=8).all(|number| takes_query(&mut liar, &mut called, number)));
        assert!(!takes_query(&mut liar, &mut called, 9), "no more of one key");
        assert!(takes_query(&mut honest, &mut called, 10));
    }

    #[test]
    fn errands_of_many_keys_at_one_address_leave_room_for_others() {
        let (mut honest, mut called) = (session(1), session(2));
        // In a fleet without seeds who proves a key is a member.
        let admit = |called: &mut Session, number| {
            called.admit(LinkId(number), TrustLevel::Member, &mut Effects::default());
        };
        assert!(takes_query(&mut honest, &mut called, 1));
        admit(&mut called, 1);
        for number in 2..=800 {
            let mut liar = session(u8::try_from(3 + number / 8).unwrap());
            assert!(errand_from([192, 0, 2, 1], &mut liar, &mut called, number), "{number}");
            admit(&mut called, number);
        }
        let live = |numbers: std::ops::RangeInclusive<u64>| {
            numbers.filter(|it| called.is_live(LinkId(*it))).count()
        };
        assert_eq!((live(1..=1), live(1..=800), live(800..=800)), (1, 512, 1));
    }

    #[test]
    fn a_proof_does_not_hold_on_another_connection() {
        let (one, other) = (Some(Binding([7; 32])), Some(Binding([8; 32])));
        for (near, far) in [(one, other), (one, None), (None, one)] {
            let (near, far) = shake(near, far);
            let failed = matches!(near[..], [Event::Failed { error: CallError::BadProof, .. }]);
            assert!(failed && far.is_empty(), "{near:?} {far:?}");
        }
    }
}
