//! Proofs of places, out of the log.

use std::sync::Arc;

use super::engine::OrderEngine;
use super::store::SlotReader;
use crate::proto::bft::{ChangeProof, Committee, PlaceProof, SlotNo};
use crate::proto::chat::entry::SeqNo;
use crate::runtime::member_log::LogStoreError;

impl OrderEngine {
    /// Proof of the message at `place`, in the group that was founded with this committee and salt.
    ///
    /// # Errors
    /// Fails if the place is not final on this disk yet, the member is stopping, too much is being
    /// read, or the disk refuses; with the reason, for people.
    pub fn proof(
        &self,
        (founders, salt): (&Arc<Committee>, &str),
        place: SeqNo,
    ) -> Result<PlaceProof, String> {
        let (founders, salt) = (Arc::clone(founders), salt.to_owned());
        let proof = self.read_log(move |log| prove(log, (&founders, &salt), place))?;
        proof.ok_or_else(|| format!("nothing is final at place {} here yet", place.0))
    }
}

fn prove(
    log: &SlotReader,
    founders: (&Committee, &str),
    place: SeqNo,
) -> Result<Option<PlaceProof>, LogStoreError> {
    let Some(slot) = log.slot_of(place) else { return Ok(None) };
    let mut changes = Vec::new();
    for at in log.changes_before(slot) {
        let Some(change) = change_at(log, at)? else { return Ok(None) };
        changes.push(change);
    }
    let page = log.page(slot, 1, 0)?;
    let (Some(content), Some(certificate)) = (page.slots.first(), page.certificate) else {
        return Ok(None);
    };
    Ok(PlaceProof::new(founders, changes, (content, page.headers), certificate, place))
}

/// Change of the committee in a slot, which has a certificate of its own.
fn change_at(log: &SlotReader, slot: SlotNo) -> Result<Option<ChangeProof>, LogStoreError> {
    let page = log.page(slot, 1, 0)?;
    let (Some(content), Some(certificate)) = (page.slots.first(), page.certificate) else {
        return Ok(None);
    };
    let (header, change) = (content.header.clone(), content.change.clone());
    Ok(change.map(|change| ChangeProof { header, change, certificate }))
}
