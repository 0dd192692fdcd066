//! Committees, headers, bundles, votes, changes and evidence by themselves: every field of a
//! statement counts, and nothing that an honest member signs is held against it.

use std::sync::Arc;

use super::committee::{RENEW_EVERY, VOTERS_MAX};
use super::line::{LINE_BYTES_MAX, encode};
use super::message::Message;
use super::view::{NewView, SignedClaim, Suspect, ViewChange};
use super::*;
use crate::model::{KeyPair, Signature, WallTime};
use crate::proto::chat::entry::{ChainHash, HostPort, Member, MemberId, Origin, SeqNo};

const EPOCH: EpochNo = EpochNo(3);

fn keys(id: u32) -> KeyPair {
    KeyPair::from_secret([u8::try_from(id).unwrap(); 32])
}

fn member(id: u32) -> Member {
    let host = "10.0.0.1".parse().unwrap();
    Member { id: MemberId(id), at: HostPort { host, port: 6_000 }, key: keys(id).public() }
}

fn committee(members: u32) -> Committee {
    Committee::of((1..=members).map(member)).unwrap()
}

fn group() -> OrderId {
    committee(4).order_id("test")
}

fn subject(view: u64, slot: u64, digest: u8) -> VoteSubject {
    let digest = ContentDigest([digest; 32]);
    VoteSubject { epoch: EPOCH, view: ViewNo(view), slot: SlotNo(slot), digest }
}

fn vote(phase: VotePhase, subject: VoteSubject, id: u32) -> PhaseVote {
    PhaseVote::sign(&group(), phase, subject, (MemberId(id), &keys(id)))
}

fn certificate(phase: VotePhase, subject: VoteSubject, signers: &[u32]) -> Certificate {
    let sign = |id: &u32| (MemberId(*id), vote(phase, subject, *id).signature);
    Certificate { phase, subject, signatures: signers.iter().map(sign).collect() }
}

#[test]
fn any_two_quorums_share_an_honest_member_and_the_honest_are_one() {
    for n in 1..=64 {
        let (f, q) = (committee(n).liars_borne(), committee(n).quorum());
        let n = n as usize;
        assert_eq!(f, (n - 1) / 3, "{n}");
        assert!(2 * q > n + f, "{n}: two quorums of {q}");
        assert!(q <= n - f, "{n}: a quorum of {q} without the liars");
        assert!(2 * (q - 1) <= n + f, "{n}: a smaller quorum would do");
    }
    assert_eq!([4, 5, 6, 7, 10].map(|n| committee(n).quorum()), [3, 4, 4, 5, 7]);
}

#[test]
fn a_committee_has_members_of_different_ids_and_keys_in_one_order() {
    let backwards = Committee::of((1..=4).rev().map(member)).unwrap();
    assert_eq!(backwards, committee(4));
    assert_eq!(
        backwards.voters().iter().map(|it| it.member.id.0).collect::<Vec<_>>(),
        [1, 2, 3, 4]
    );
    assert_eq!(backwards.key(MemberId(3)), Some(&keys(3).public()));
    assert_eq!(backwards.key(MemberId(5)), None);
    Committee::of([]).unwrap_err();
    Committee::of((1..=65).map(member)).unwrap_err();
    Committee::of([member(1), Member { key: keys(9).public(), ..member(1) }]).unwrap_err();
    Committee::of([member(1), Member { id: MemberId(9), ..member(1) }]).unwrap_err();
}

#[test]
fn everything_of_a_committee_is_in_its_digest_and_identity() {
    let base = committee(4);
    let mut others = vec![committee(3), committee(5)];
    let changed = |change: fn(&mut Voter)| {
        let mut voters = committee(4).voters().to_vec();
        change(&mut voters[1]);
        Committee::try_from(voters).unwrap()
    };
    others.push(changed(|it| it.member.id = MemberId(9)));
    others.push(changed(|it| it.member.at.port = 1));
    others.push(changed(|it| it.member.at.host = "10.0.0.2".parse().unwrap()));
    others.push(changed(|it| it.member.key = keys(9).public()));
    others.push(changed(|it| it.life.counter = 1));
    others.push(changed(|it| it.life.number = 1));
    others.push(changed(|it| it.renewed = SlotNo(1)));
    for other in others {
        assert_ne!(other.digest(), base.digest(), "{other:?}");
        assert_ne!(other.order_id("s"), base.order_id("s"), "{other:?}");
    }
    assert_ne!(base.order_id("s"), base.order_id("t"));
    assert_ne!(base.order_id("s").0, base.digest().0);
}

#[test]
fn members_lead_by_turns_and_each_epoch_begins_with_the_next() {
    let it = committee(4);
    let leaders =
        |epoch, views: [u64; 5]| views.map(|view| it.leader(EpochNo(epoch), ViewNo(view)).0);
    assert_eq!(leaders(0, [0, 1, 2, 3, 4]), [1, 2, 3, 4, 1]);
    assert_eq!(leaders(1, [0, 1, 2, 3, 4]), [2, 3, 4, 1, 2]);
    it.leader(EpochNo(u64::MAX), ViewNo(u64::MAX));
}

fn header() -> SlotHeader {
    let named = BundleRef { digest: ContentDigest([1; 32]), count: 5, skip: 2 };
    SlotHeader {
        epoch: EPOCH,
        slot: SlotNo(7),
        parent: ContentDigest([2; 32]),
        time: WallTime(9),
        place: SeqNo(11),
        hash: ChainHash([3; 32]),
        bundles: vec![named, BundleRef { digest: ContentDigest([4; 32]), count: 1, skip: 0 }],
        change: None,
        committee: None,
        state: None,
    }
}

#[test]
fn everything_of_a_header_is_in_its_digest() {
    let changes: &[fn(&mut SlotHeader)] = &[
        |it| it.epoch.0 += 1,
        |it| it.slot.0 += 1,
        |it| it.parent = ContentDigest::default(),
        |it| it.time.0 += 1,
        |it| it.place.0 += 1,
        |it| it.hash = ChainHash::default(),
        |it| it.bundles.swap(0, 1),
        |it| it.bundles.truncate(1),
        |it| it.bundles[1].digest = ContentDigest::default(),
        |it| it.bundles[1].count += 1,
        |it| it.bundles[1].skip += 1,
        |it| it.change = Some(ContentDigest::default()),
        |it| it.committee = Some(ContentDigest::default()),
        |it| it.state = Some(ContentDigest::default()),
    ];
    let mut digests = vec![header().digest(&group()), header().digest(&OrderId([0; 32]))];
    for change in changes {
        let mut it = header();
        change(&mut it);
        digests.push(it.digest(&group()));
    }
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), changes.len() + 2);
    assert_eq!(header().messages(), 4);
}

#[test]
fn a_vote_says_its_phase_group_epoch_view_slot_and_digest() {
    let it = vote(VotePhase::Commit, subject(1, 2, 3), 1);
    let (key, other) = (keys(1).public(), keys(2).public());
    assert!(it.is_valid(&group(), VotePhase::Commit, &key));
    assert!(!it.is_valid(&group(), VotePhase::Prepare, &key));
    assert!(!it.is_valid(&OrderId([0; 32]), VotePhase::Commit, &key));
    assert!(!it.is_valid(&group(), VotePhase::Commit, &other));
    let mut epoch = it;
    epoch.subject.epoch = EpochNo(4);
    for subject in [subject(2, 2, 3), subject(1, 3, 3), subject(1, 2, 4), epoch.subject] {
        let other = PhaseVote { subject, ..it };
        assert!(!other.is_valid(&group(), VotePhase::Commit, &key), "{subject:?}");
    }
}

#[test]
fn a_certificate_is_a_quorum_of_different_members_and_nobody_else() {
    let it = |signers: &[u32]| certificate(VotePhase::Commit, subject(0, 1, 1), signers);
    let is_valid = |it: &Certificate| it.is_valid(&group(), &committee(4));
    assert!(is_valid(&it(&[1, 2, 4])) && is_valid(&it(&[1, 2, 3, 4])));
    for signers in [&[][..], &[1, 2], &[1, 1, 2], &[1, 2, 2], &[1, 2, 5], &[1, 2, 3, 5], &[1, 4, 2]]
    {
        assert!(!is_valid(&it(signers)), "{signers:?}");
    }
    let mut swapped = it(&[1, 2, 3]);
    (swapped.signatures[0].1, swapped.signatures[1].1) =
        (swapped.signatures[1].1, swapped.signatures[0].1);
    assert!(!is_valid(&swapped));
    let prepared = Certificate { phase: VotePhase::Prepare, ..it(&[1, 2, 3]) };
    assert!(!is_valid(&prepared), "COMMITs are no PREPAREs");
    assert!(!it(&[1, 2, 3]).is_valid(&group(), &committee(7)), "another committee's quorum");
}

#[test]
fn claims_rank_by_view_then_slot_and_an_epochs_beginning_is_below_all() {
    let claim = |phase, view, slot| Claim {
        phase,
        view: ViewNo(view),
        slot: SlotNo(slot),
        digest: ContentDigest([1; 32]),
    };
    let ascending = [
        claim(ClaimKind::Start, 0, 900),
        claim(ClaimKind::Prepare, 0, 901),
        claim(ClaimKind::Commit, 0, 901),
        claim(ClaimKind::Prepare, 0, 902),
        claim(ClaimKind::Prepare, 1, 901),
    ];
    assert!(ascending.windows(2).all(|pair| pair[0].rank() < pair[1].rank()));
    let sign = |(id, claim)| {
        let view = (EPOCH, ViewNo(2));
        SignedClaim::sign(&group(), view, claim, (MemberId(id), &keys(id)))
    };
    let changes: Vec<_> = (1..).zip(ascending).map(sign).collect();
    let view = (EPOCH, ViewNo(2));
    let it = NewView::sign(&group(), view, changes, None, (MemberId(1), &keys(1)));
    assert_eq!(it.base(), Some(ascending[4]));
    assert_eq!(NewView::sign(&group(), view, vec![], None, (MemberId(1), &keys(1))).base(), None);
}

#[test]
fn wishes_claims_and_beginnings_hold_for_their_view_only() {
    let (me, view) = ((MemberId(1), &keys(1)), (EPOCH, ViewNo(2)));
    let key = keys(1).public();
    let wish = Suspect::sign(&group(), view, "slow", me);
    assert!(wish.is_valid(&group(), &key));
    assert!(Suspect { reason: "else".into(), ..wish.clone() }.is_valid(&group(), &key));
    assert!(!Suspect { view: ViewNo(3), ..wish.clone() }.is_valid(&group(), &key));
    assert!(!Suspect { epoch: EpochNo(4), ..wish.clone() }.is_valid(&group(), &key));
    assert!(!wish.is_valid(&OrderId([0; 32]), &key));
    let claim = Claim::of(&certificate(VotePhase::Prepare, subject(1, 5, 6), &[1, 2, 3]));
    let signed = SignedClaim::sign(&group(), view, claim, me);
    assert!(signed.is_valid(&group(), view, &key));
    assert!(!signed.is_valid(&group(), (EPOCH, ViewNo(3)), &key));
    assert!(!signed.is_valid(&group(), (EpochNo(4), ViewNo(2)), &key));
    for other in [
        Claim { phase: ClaimKind::Commit, ..claim },
        Claim { view: ViewNo(0), ..claim },
        Claim { slot: SlotNo(6), ..claim },
        Claim { digest: ContentDigest::default(), ..claim },
    ] {
        let other = SignedClaim { claim: other, ..signed };
        assert!(!other.is_valid(&group(), view, &key), "{other:?}");
    }
    let begun = NewView::sign(&group(), view, vec![signed], None, me);
    assert!(begun.is_signed(&group(), &key));
    assert!(!NewView { view: ViewNo(3), ..begun.clone() }.is_signed(&group(), &key));
    assert!(!NewView { changes: vec![], ..begun.clone() }.is_signed(&group(), &key));
    assert!(!NewView { changes: vec![signed; 2], ..begun }.is_signed(&group(), &key));
}

#[test]
fn a_bundle_holds_for_its_group_numbering_number_and_texts_only() {
    let item = |text: &str| BundleItem { room: "r".into(), payload: text.into() };
    let origin = Origin { member: MemberId(1), client: 9 };
    let sign = |first, items| Bundle::sign(&group(), origin, first, items, &keys(1));
    let it = sign(5, vec![item("a"), item("b")]);
    let is_valid = |it: &Bundle| it.is_valid(&group(), &it.statement(), &keys(1).public());
    assert!(is_valid(&it));
    assert_eq!((it.count(), it.last()), (2, 6));
    assert_eq!(it.message(1).unwrap().msg_id.number, 6);
    assert_eq!(it.message(2), None);
    let boundary = BundleItem { room: "ra".into(), payload: "".into() };
    for other in [
        Bundle { author: MemberId(2), ..it.clone() },
        Bundle { client: 8, ..it.clone() },
        Bundle { first: 6, ..it.clone() },
        Bundle { items: vec![item("a")], ..it.clone() },
        Bundle { items: vec![item("b"), item("a")], ..it.clone() },
        Bundle { items: vec![boundary, item("b")], ..it.clone() },
        Bundle { signature: Signature::from_bytes([0; 64]), ..it.clone() },
        sign(5, vec![]),
        sign(0, vec![item("a")]),
        sign(u64::MAX, vec![item("a")]),
        sign(1, vec![item("a"); bundle::BUNDLE_ITEMS_MAX + 1]),
    ] {
        assert!(!is_valid(&other), "{other:?}");
    }
    assert!(is_valid(&sign(u64::MAX - 1, vec![item("a")])));
    assert!(!it.is_valid(&OrderId([0; 32]), &it.statement(), &keys(1).public()));
}

fn approve(change: &MembershipChange, epoch: EpochNo, signers: &[u32]) -> Vec<Approval> {
    let digest = change.digest(&group());
    let sign = |id: &u32| Approval::sign(&group(), epoch, &digest, (MemberId(*id), &keys(*id)));
    signers.iter().map(sign).collect()
}

fn apply(change: &MembershipChange) -> Option<Committee> {
    change.apply(&group(), (EPOCH, SlotNo(9)), &committee(4))
}

#[test]
fn a_member_is_added_or_removed_by_a_quorum_of_different_members() {
    let add = |approvals| MembershipChange::Add { member: member(5), approvals };
    let remove = |approvals| MembershipChange::Remove { member: MemberId(2), approvals };
    let makes: [&dyn Fn(Vec<Approval>) -> MembershipChange; 2] = [&add, &remove];
    for make in makes {
        let bare = make(vec![]);
        for signers in [&[1, 2, 3][..], &[3, 1, 4], &[1, 2, 3, 4]] {
            let change = make(approve(&bare, EPOCH, signers));
            assert!(apply(&change).is_some(), "{signers:?}");
            assert_eq!(change.digest(&group()), bare.digest(&group()));
        }
        for signers in [&[][..], &[1, 2], &[1, 2, 2], &[1, 2, 5], &[1, 2, 3, 3], &[1, 2, 3, 5]] {
            assert_eq!(apply(&make(approve(&bare, EPOCH, signers))), None, "{signers:?}");
        }
        let late = make(approve(&bare, EPOCH.next(), &[1, 2, 3]));
        assert_eq!(apply(&late), None, "approvals of another epoch");
    }
    let of_other = approve(&remove(vec![]), EPOCH, &[1, 2, 3]);
    assert_eq!(apply(&add(of_other)), None, "approvals of another change");
    let after = apply(&add(approve(&add(vec![]), EPOCH, &[1, 2, 3]))).unwrap();
    // The life of a new member is above those that it had if it was a member before.
    let life = after.voters()[4].life;
    assert_eq!((life.counter > 0, life.number), (true, 0));
    assert_eq!(after.voters().iter().map(|it| it.member.id.0).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    let after = apply(&remove(approve(&remove(vec![]), EPOCH, &[1, 2, 3]))).unwrap();
    assert_eq!(after, Committee::of([1, 3, 4].map(member)).unwrap());
}

#[test]
fn a_change_that_leads_to_no_committee_is_not_valid() {
    let approved = |make: &dyn Fn(Vec<Approval>) -> MembershipChange| {
        apply(&make(approve(&make(vec![]), EPOCH, &[1, 2, 3])))
    };
    let add = |member: Member| {
        approved(&|approvals| MembershipChange::Add { member: member.clone(), approvals })
    };
    assert!(add(member(9)).is_some());
    assert_eq!(add(member(2)), None, "a member already");
    assert_eq!(add(Member { id: MemberId(9), ..member(2) }), None, "a member's key");
    assert_eq!(add(Member { id: MemberId(2), ..member(9) }), None, "a member's id");
    let stranger =
        approved(&|approvals| MembershipChange::Remove { member: MemberId(9), approvals });
    assert_eq!(stranger, None);
    let alone = Committee::of([member(1)]).unwrap();
    let bare = MembershipChange::Remove { member: MemberId(1), approvals: vec![] };
    let last =
        MembershipChange::Remove { member: MemberId(1), approvals: approve(&bare, EPOCH, &[1]) };
    assert_eq!(last.apply(&group(), (EPOCH, SlotNo(9)), &alone), None, "the last member");
}

#[test]
fn a_member_renews_its_own_life_by_one_and_not_too_often() {
    let renew = |id, counter, signer| {
        let life = Life { counter, number: 77 };
        MembershipChange::renew(&group(), MemberId(id), life, &keys(signer))
    };
    let after = apply(&renew(2, 1, 2)).unwrap();
    let voter = after.voter(MemberId(2)).unwrap();
    assert_eq!((voter.life, voter.renewed), (Life { counter: 1, number: 77 }, SlotNo(9)));
    for (change, why) in [
        (renew(2, 0, 2), "the same life"),
        (renew(2, 2, 2), "the life after the next"),
        (renew(2, 1, 3), "another signed it"),
        (renew(9, 1, 9), "no member"),
    ] {
        assert_eq!(apply(&change), None, "{why}");
    }
    let MembershipChange::Renew { member, signature, .. } = renew(2, 1, 2) else { unreachable!() };
    let life = Life { counter: 1, number: 78 };
    let other = MembershipChange::Renew { member, life, signature };
    assert_eq!(apply(&other), None, "another number");
    let second = renew(2, 2, 2);
    let at = |slot| second.apply(&group(), (EPOCH, SlotNo(slot)), &after);
    let pause = RENEW_EVERY * 4;
    assert_eq!(at(9 + pause - 1), None);
    assert!(at(9 + pause).is_some());
    let life = Life { counter: u64::MAX, number: 1 };
    let oldest = committee(4).renewed(MemberId(2), life, SlotNo(1));
    let overflow = renew(2, 0, 2).apply(&group(), (EPOCH, SlotNo(999)), &oldest);
    assert_eq!(overflow, None, "lives do not begin anew");
}

fn change(view: u64, claim: Claim, id: u32) -> Arc<ViewChange> {
    let at = (EPOCH, ViewNo(view));
    let signed = SignedClaim::sign(&group(), at, claim, (MemberId(id), &keys(id)));
    Arc::new(ViewChange { epoch: EPOCH, view: ViewNo(view), signed, certificate: None })
}

#[test]
fn two_votes_that_exclude_each_other_are_evidence_and_no_others() {
    let valid = |first, second| {
        let it = Equivocation::Votes { phase: VotePhase::Prepare, first, second };
        assert_eq!((it.member(), it.epoch()), (MemberId(2), EPOCH));
        it.is_valid(&group(), &keys(2).public())
    };
    let prepare = |view, slot, digest| vote(VotePhase::Prepare, subject(view, slot, digest), 2);
    let first = prepare(1, 5, 1);
    assert!(valid(first, prepare(1, 5, 2)));
    assert!(!valid(first, first), "the same vote twice");
    assert!(!valid(first, prepare(2, 5, 2)), "another view");
    assert!(!valid(first, prepare(1, 6, 2)), "another slot");
    assert!(!valid(first, vote(VotePhase::Prepare, subject(1, 5, 2), 3)), "another member");
    assert!(!valid(first, vote(VotePhase::Commit, subject(1, 5, 2), 2)), "another phase");
    let mut forged = prepare(1, 5, 2);
    forged.signature = vote(VotePhase::Prepare, subject(1, 5, 2), 3).signature;
    assert!(!valid(first, forged), "signed by another");
    let mut epoch = subject(1, 5, 2);
    epoch.epoch = EPOCH.next();
    assert!(!valid(first, vote(VotePhase::Prepare, epoch, 2)), "another epoch");
}

#[test]
fn a_claim_below_an_earlier_commit_is_evidence_and_what_an_honest_member_signs_is_not() {
    let commit = vote(VotePhase::Commit, subject(2, 5, 1), 2);
    let claim = |phase, view, slot, digest| {
        let digest = ContentDigest([digest; 32]);
        Claim { phase, view: ViewNo(view), slot: SlotNo(slot), digest }
    };
    let valid = |commit, change| {
        Equivocation::Claim { commit, change }.is_valid(&group(), &keys(2).public())
    };
    let hiding = [
        claim(ClaimKind::Start, 0, 0, 9),
        claim(ClaimKind::Start, 7, 9, 9),
        claim(ClaimKind::Prepare, 1, 9, 1),
        claim(ClaimKind::Commit, 1, 4, 1),
        claim(ClaimKind::Prepare, 2, 4, 1),
        claim(ClaimKind::Commit, 2, 4, 1),
    ];
    for claim in hiding {
        assert!(valid(commit, change(3, claim, 2)), "{claim:?}");
        assert!(!valid(commit, change(2, claim, 2)), "signed before: {claim:?}");
        assert!(!valid(commit, change(3, claim, 3)), "another member: {claim:?}");
        let mut later = ViewChange::clone(&change(3, claim, 2));
        later.epoch = EPOCH.next();
        assert!(!valid(commit, Arc::new(later)), "another epoch: {claim:?}");
    }
    for claim in [
        claim(ClaimKind::Prepare, 2, 5, 1),
        claim(ClaimKind::Commit, 2, 5, 1),
        // Final in an earlier view, it hides nothing of the slots up to it.
        claim(ClaimKind::Commit, 1, 5, 1),
        claim(ClaimKind::Commit, 1, 9, 1),
        claim(ClaimKind::Prepare, 2, 6, 3),
        claim(ClaimKind::Prepare, 3, 4, 3),
    ] {
        assert!(!valid(commit, change(4, claim, 2)), "{claim:?}");
    }
    let prepare = vote(VotePhase::Prepare, subject(2, 5, 1), 2);
    assert!(!valid(prepare, change(3, hiding[0], 2)), "a PREPARE promises no claim");
}

#[test]
fn two_beginnings_of_one_view_with_different_bases_are_evidence() {
    let begin = |view, digest, id| {
        let claim = Claim::of(&certificate(VotePhase::Prepare, subject(1, 5, digest), &[]));
        let changes = vec![change(view, claim, 3).signed];
        let at = (EPOCH, ViewNo(view));
        Arc::new(NewView::sign(&group(), at, changes, None, (MemberId(id), &keys(id))))
    };
    let valid = |first: &Arc<NewView>, second| {
        let first = Arc::clone(first);
        Equivocation::NewViews { first, second }.is_valid(&group(), &keys(2).public())
    };
    let first = begin(2, 1, 2);
    assert!(valid(&first, begin(2, 2, 2)));
    assert!(!valid(&first, Arc::clone(&first)), "the same twice");
    assert!(!valid(&first, begin(3, 2, 2)), "another view");
    assert!(!valid(&first, begin(2, 2, 3)), "another member");
    let mut forged = NewView::clone(&begin(2, 2, 2));
    forged.signature = begin(2, 2, 3).signature;
    assert!(!valid(&first, Arc::new(forged)), "signed by another");
}

#[test]
fn a_beginning_longer_than_any_honest_one_is_no_evidence() {
    let begin = |digest, claims: usize| {
        let claim = Claim::of(&certificate(VotePhase::Prepare, subject(1, 5, digest), &[]));
        let changes = vec![change(2, claim, 3).signed; claims];
        let at = (EPOCH, ViewNo(2));
        Arc::new(NewView::sign(&group(), at, changes, None, (MemberId(2), &keys(2))))
    };
    let valid = |first, second| {
        Equivocation::NewViews { first, second }.is_valid(&group(), &keys(2).public())
    };
    assert!(valid(begin(1, VOTERS_MAX), begin(2, VOTERS_MAX)));
    assert!(!valid(begin(1, 1), begin(2, VOTERS_MAX + 1)));
    assert!(!valid(begin(1, VOTERS_MAX + 1), begin(2, 1)));
    // The longest that is taken can be passed on.
    let (first, second) = (begin(1, VOTERS_MAX), begin(2, VOTERS_MAX));
    let evidence = Message::Evidence(Arc::new(Equivocation::NewViews { first, second }));
    assert!(encode(&evidence).len() < LINE_BYTES_MAX / 2);
}
