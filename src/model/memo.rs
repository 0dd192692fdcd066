//! Memory of the valid signatures, for programs that play many nodes in one thread.
//!
//! The validity of a signature is a pure function of key, statement and signature. In a fleet of
//! thousands the same statement is judged by hundreds of nodes; where all of them live in one
//! thread, the arithmetic is done once. Signing is real; a signature that was made here is known
//! to hold, and only signatures that hold are remembered: a forged one is always computed.
//!
//! Invariant: with the memo or without it, every answer is the same. Off unless a [`VerdictMemo`]
//! is held; the drivers of real nodes hold none.

use std::cell::RefCell;

use sha2::{Digest as _, Sha256};

use super::{PublicKey, Signature, SigningBytes};

/// Verdicts kept: at 32 bytes each 8 MiB. A newer one replaces an older one of the same slot.
const SLOTS: usize = 1 << 18;

/// A key, a statement and a signature that hold together, as one hash.
type Proof = [u8; 32];

thread_local! {
    static PROOFS: RefCell<Vec<Proof>> = const { RefCell::new(Vec::new()) };
}

/// While this lives, its thread remembers which signatures hold.
#[derive(Debug)]
pub struct VerdictMemo(());

impl VerdictMemo {
    /// Turns the memory on, empty.
    #[must_use]
    pub fn on_this_thread() -> Self {
        PROOFS.with_borrow_mut(|proofs| *proofs = vec![[0; 32]; SLOTS]);
        Self(())
    }
}

impl Drop for VerdictMemo {
    fn drop(&mut self) {
        PROOFS.with_borrow_mut(|proofs| *proofs = Vec::new());
    }
}

fn proof_of(key: &PublicKey, statement: &SigningBytes, signature: &Signature) -> Proof {
    let hash = Sha256::new().chain_update(key.as_bytes()).chain_update(signature.as_bytes());
    hash.chain_update(statement.as_bytes()).finalize().into()
}

fn slot_of(proof: &Proof) -> usize {
    let [a, b, c, d, ..] = *proof;
    u32::from_be_bytes([a, b, c, d]) as usize % SLOTS
}

/// Remembers a signature that this thread made.
pub(super) fn made(key: &PublicKey, statement: &SigningBytes, signature: &Signature) {
    PROOFS.with_borrow_mut(|proofs| {
        if !proofs.is_empty() {
            let proof = proof_of(key, statement, signature);
            proofs[slot_of(&proof)] = proof;
        }
    });
}

/// True if a signature is valid, by memory or else by `compute`.
pub(super) fn holds(
    key: &PublicKey,
    statement: &SigningBytes,
    signature: &Signature,
    compute: impl FnOnce() -> bool,
) -> bool {
    PROOFS.with_borrow_mut(|proofs| {
        if proofs.is_empty() {
            return compute();
        }
        let proof = proof_of(key, statement, signature);
        let slot = &mut proofs[slot_of(&proof)];
        let is_valid = *slot == proof || compute();
        if is_valid {
            *slot = proof;
        }
        is_valid
    })
}
