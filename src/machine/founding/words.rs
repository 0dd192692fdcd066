//! State of a founding in words.

use super::{Founding, FoundingStage};
use crate::model::Endpoint;
use crate::proto::chat::entry::MemberId;

impl Founding {
    /// State of the founding, for people.
    #[must_use]
    pub fn words(&self) -> String {
        let (order, size) = (&self.order, self.size);
        match &self.record.stage {
            FoundingStage::Gathers => {
                let mut known: Vec<_> = self.free().map(|(at, _)| at).chain([self.at]).collect();
                known.sort_unstable();
                let mut text = format!("order {order}: {} of {size} founders found", known.len());
                let list: Vec<_> = known.iter().map(ToString::to_string).collect();
                text.push_str(&format!(" ({})", list.join(", ")));
                if self.candidates.values().filter(|it| it.is_bound).count() >= size {
                    text.push_str("; others have founded it without this peer");
                } else if let Some((from, size)) = self.odd {
                    text.push_str(&format!("; {from} wants {size} members: say the same on all"));
                }
                text
            }
            FoundingStage::Signed(roster) => {
                let is_late = |id: &MemberId| !roster.signatures.contains_key(id);
                let late: Vec<_> = roster
                    .members
                    .iter()
                    .filter(|it| is_late(&it.id))
                    .map(|it| Endpoint::new(it.at.host, it.at.port).to_string())
                    .collect();
                format!("order {order}: signed the roster; waits for {}", late.join(", "))
            }
            FoundingStage::Entered(_) => {
                format!("order {order}: all {size} have signed the roster; founds the group")
            }
            FoundingStage::Founded(roster) => {
                let group = roster.group(&self.order).map_or_else(String::new, |it| it.to_string());
                format!("order {order}: founded by {size} members of the fleet, group {group}")
            }
        }
    }
}
