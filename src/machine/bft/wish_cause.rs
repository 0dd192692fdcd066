//! Causes of wishes for another leader, as metrics name them.

/// Beginnings of the reasons that members give, and their causes. A reason is a text of its sender,
/// who may lie, so the causes are a closed list.
const CAUSES: [(&str, &str); 14] = [
    ("nothing has become final for too long", "patience"),
    ("its leader has not begun it", "not_begun"),
    ("the connection with its leader broke", "broken"),
    ("its reign is over", "reign"),
    ("its leader passes over ", "passed_over"),
    ("its leader has signed two things", "equivocation"),
    ("its proposal does not follow the chain", "proposal"),
    ("its proposal says what is not so", "proposal"),
    ("its leader has fallen behind", "behind"),
    ("its leader has lost what it had signed", "lost"),
    ("it leads, and has lost what it had signed", "lost"),
    ("others wish for it", "others"),
    ("it was restarted", "restart"),
    ("its operator asks for another leader", "operator"),
];

/// Cause of a wish by its reason, for metrics; `other` if no member of this version gives it.
#[must_use]
pub fn cause_of_wish(reason: &str) -> &'static str {
    let known = CAUSES.iter().find(|(beginning, _)| reason.starts_with(beginning));
    known.map_or("other", |(_, cause)| cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_causes_are_of_reasons_that_the_machine_gives() {
        let sources = [
            include_str!("agree.rs"),
            include_str!("receive.rs"),
            include_str!("replica.rs"),
            include_str!("view_change.rs"),
        ];
        for (reason, cause) in CAUSES {
            assert!(sources.iter().any(|it| it.contains(reason)), "{reason}");
            assert_eq!(cause_of_wish(&format!("{reason}peer_3")), cause);
        }
        assert_eq!(cause_of_wish("its leader is ugly"), "other");
    }
}
