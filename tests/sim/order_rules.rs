//! Each rule of the Byzantine order is needed: without it the checker finds a violation, in a storm
//! or in a scenario that brings it about; with it the same run is clean.

#![allow(clippy::print_stdout, reason = "it prints what it found")]

use std::panic::catch_unwind;
use std::time::Duration;

use folkmoot::machine::bft::{BftRule, Config};
use folkmoot::model::Rng;

use crate::order::{Campaign, Liars, run};
use crate::order_world::{Kind, Lie, Weather};

const fn calm(_: &mut Rng) -> Weather {
    Weather {
        fault: 1_000_000,
        typing: 50_000,
        delay: 2_000,
        calm_delay: 5_000,
        silence: 10_000_000,
        weights: [0; 15],
        is_calm: true,
    }
}

/// Slow disks, and power cuts of one or of all.
fn power_cuts(rng: &mut Rng) -> Weather {
    let mut weights = [0; 15];
    (weights[2], weights[3], weights[4], weights[7], weights[9], weights[11]) = (5, 4, 2, 1, 2, 4);
    Weather { fault: 200_000, typing: 50_000, weights, ..Weather::draw(rng) }
}

/// What a run comes to: the checker's finding, or a machine's own assertion.
fn finding(seed: u64, campaign: &Campaign) -> Option<Kind> {
    let outcome = catch_unwind(|| run(seed, campaign));
    match outcome {
        Ok(outcome) => outcome.violation.map(|it| it.kind).filter(|it| *it != Kind::Unsettled),
        Err(_) => Some(Kind::Assertion),
    }
}

/// One of so many runs without the rule violates the order, and the same run with it does not.
#[track_caller]
fn needed(rule: BftRule, runs: u64, campaign: &Campaign) {
    let is_live = matches!(
        rule,
        BftRule::Wish | BftRule::Patience | BftRule::Doubling | BftRule::Fairness | BftRule::Repair
    );
    let without = Campaign { without: Some(rule), ..campaign.clone() };
    let counts = |kind: &Kind| is_live || *kind != Kind::Stuck;
    let found = (0..runs).find_map(|seed| {
        let kind = finding(seed, &without).filter(counts)?;
        Some((seed, kind))
    });
    println!("without {rule:?}: {found:?} of {runs} runs");
    let (seed, _) = found.unwrap_or_else(|| panic!("{runs} runs without {rule:?} are clean"));
    assert_eq!(finding(seed, campaign), None, "seed {seed} with {rule:?}");
}

/// Two contents for two halves, and as many countersignatures as there can be.
const PLOT: Campaign = Campaign {
    lies: &[Lie::Equivocate, Lie::Countersign],
    liars: Liars::Borne,
    weather: calm,
    tune: |_| {},
    is_plot: true,
    members: (4, 7),
    without: None,
    changes: false,
};

/// The storms of all kinds.
const STORM: Campaign = Campaign {
    lies: &Lie::ALL,
    liars: Liars::UpToBorne,
    weather: Weather::draw,
    tune: |_| {},
    is_plot: false,
    members: (4, 7),
    without: None,
    changes: false,
};

#[test]
fn b1_a_majority_is_no_quorum() {
    needed(BftRule::Quorum, 100, &Campaign { members: (5, 5), ..PLOT });
}

#[test]
fn b2_votes_are_signed() {
    let lies = &[Lie::Forge, Lie::FalseSlots];
    needed(BftRule::Signed, 100, &Campaign { lies, ..PLOT });
}

#[test]
fn b3_everything_is_in_the_digest() {
    needed(BftRule::Digest, 100, &Campaign { weather: Weather::draw, ..PLOT });
}

#[test]
fn b5_only_the_leader_proposes() {
    needed(BftRule::Leader, 100, &Campaign { lies: &[Lie::Usurp], ..PLOT });
}

#[test]
fn b6_a_slot_follows_its_parent() {
    let lies = &[Lie::Equivocate, Lie::Countersign, Lie::Misplace];
    needed(BftRule::Chain, 100, &Campaign { lies, ..PLOT });
}

#[test]
fn b7_contents_come_before_the_vote() {
    let lies = &[Lie::Equivocate, Lie::Countersign, Lie::Misplace];
    needed(BftRule::Content, 100, &Campaign { lies, ..PLOT });
}

#[test]
fn b7_authors_sign() {
    needed(BftRule::Author, 100, &Campaign { lies: &[Lie::Invent], ..PLOT });
}

#[test]
fn b8_the_disk_comes_before_commit() {
    needed(BftRule::Disk, 300, &Campaign { weather: power_cuts, ..STORM });
}

#[test]
fn b9_a_view_is_promised_on_disk() {
    needed(BftRule::Promise, 1_000, &Campaign { weather: power_cuts, ..STORM });
}

#[test]
fn b10_a_restart_votes_in_later_views() {
    needed(BftRule::Restart, 1_000, &Campaign { weather: power_cuts, ..STORM });
}

#[test]
fn b11_a_claim_is_the_highest_certificate() {
    needed(BftRule::Claim, 200, &STORM);
}

#[test]
fn b11_a_claim_is_proved() {
    needed(BftRule::ClaimProof, 300, &Campaign { lies: &[Lie::Forge], ..STORM });
}

#[test]
fn b12_a_view_begins_at_the_highest_claim() {
    let lies = &[Lie::FalseView];
    needed(BftRule::Base, 1_000, &Campaign { lies, liars: Liars::Borne, ..STORM });
}

#[test]
fn b15_a_message_has_one_place() {
    needed(BftRule::Once, 100, &Campaign { lies: &[Lie::Repeat], ..PLOT });
}

#[test]
fn b16_a_view_is_agreed_on() {
    needed(BftRule::Wish, 100, &STORM);
}

#[test]
fn b17_a_silent_leader_is_given_up() {
    needed(BftRule::Patience, 100, &Campaign { lies: &[Lie::Silent], ..PLOT });
}

#[test]
fn b17_patience_doubles() {
    let weather = |rng: &mut Rng| Weather { delay: 400_000, calm_delay: 400_000, ..calm(rng) };
    let tune = |config: &mut Config| config.patience = Duration::from_millis(200);
    needed(BftRule::Doubling, 20, &Campaign { weather, tune, lies: &[Lie::Suspect], ..PLOT });
}

#[test]
fn b18_every_author_gets_a_turn() {
    let tune = |config: &mut Config| config.reign = Duration::ZERO;
    needed(BftRule::Fairness, 100, &Campaign { tune, lies: &[Lie::Censor], ..PLOT });
}

#[test]
fn b21_slots_are_believed_by_a_certificate() {
    needed(BftRule::Catchup, 100, &Campaign { lies: &[Lie::FalseSlots], ..STORM });
}

#[test]
fn b22_what_is_under_way_is_said_again() {
    needed(BftRule::Repair, 100, &STORM);
}

/// The test that finds out that a rule is left out. A new rule does not compile until it is here.
const fn found_by(rule: BftRule) -> &'static str {
    match rule {
        BftRule::Quorum => "b1_a_majority_is_no_quorum",
        BftRule::Signed => "b2_votes_are_signed",
        BftRule::Digest => "b3_everything_is_in_the_digest",
        BftRule::OneVote => "b4_a_member_votes_once",
        BftRule::Leader => "b5_only_the_leader_proposes",
        BftRule::Chain => "b6_a_slot_follows_its_parent",
        BftRule::Content => "b7_contents_come_before_the_vote",
        BftRule::Author => "b7_authors_sign",
        BftRule::Disk => "b8_the_disk_comes_before_commit",
        BftRule::OwnCommit => "b8_a_member_counts_its_own_commit_only_when_its_disk_has_it",
        BftRule::Promise => "b9_a_view_is_promised_on_disk",
        BftRule::Restart => "b10_a_restart_votes_in_later_views",
        BftRule::Claim => "b11_a_claim_is_the_highest_certificate",
        BftRule::ClaimProof => "b11_a_claim_is_proved",
        BftRule::Base => "b12_a_view_begins_at_the_highest_claim",
        BftRule::BaseContent => "b12_a_leader_counts_a_claim_only_with_its_content",
        BftRule::Once => "b15_a_message_has_one_place",
        BftRule::Wish => "b16_a_view_is_agreed_on",
        BftRule::Patience => "b17_a_silent_leader_is_given_up",
        BftRule::Doubling => "b17_patience_doubles",
        BftRule::Fairness => "b18_every_author_gets_a_turn",
        BftRule::Epoch => "b19_nothing_is_proposed_behind_a_change_that_is_not_final",
        BftRule::Memory => "b20_an_old_disk_is_noticed_by_what_others_heard",
        BftRule::FreshLife => "b20_a_new_life_is_not_the_one_before",
        BftRule::Hole => "b20_the_loss_is_on_disk",
        BftRule::Catchup => "b21_slots_are_believed_by_a_certificate",
        BftRule::Repair => "b22_what_is_under_way_is_said_again",
    }
}

#[test]
fn each_rule_that_can_be_left_out_has_a_test_that_finds_it_out() {
    const TESTS: [&str; 3] = [
        include_str!("order_rules.rs"),
        include_str!("order_scripts.rs"),
        include_str!("order_twins.rs"),
    ];
    for rule in BftRule::ALL {
        let test = format!("#[test]\nfn {}() {{\n", found_by(rule));
        let source = TESTS.iter().find(|it| it.contains(&test));
        let source = source.unwrap_or_else(|| panic!("{rule:?} has no test"));
        let body = source.split(&test).nth(1).and_then(|it| it.split("\n}\n").next());
        let leaves_out = body.is_some_and(|it| it.contains(&format!("BftRule::{rule:?}")));
        assert!(leaves_out, "{rule:?} is kept in {}", found_by(rule));
    }
}
