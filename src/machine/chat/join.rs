//! Mutual authentication of two ends of a connection: the statement that both sign.
//!
//! It covers all that was said before, with sender, receiver and connection, so that no proof can
//! be replayed to another member or on another connection.

use super::entry::{Member, MemberId};
use super::messages::{Intent, Join};
use crate::machine::Binding;
use crate::model::{Nonce, PublicKey, SigningBytes};

/// Domain of the called member's proof.
pub const CHALLENGE: &str = "folkmoot/chat/challenge/1";

/// Domain of the caller's proof.
pub const PROOF: &str = "folkmoot/chat/proof/1";

/// Statement that both ends sign: everything that was sent, with sender, receiver and connection.
pub fn statement(
    domain: &str,
    join: &Join,
    caller: &Member,
    called: (MemberId, &PublicKey, &Nonce),
    binding: Option<Binding>,
) -> SigningBytes {
    let intent = match join.intent {
        Intent::Member => 0,
        Intent::Client => 1,
    };
    let group: &[u8] = join.group.as_ref().map_or(&[], |it| &it.0);
    let binding: &[u8] = binding.as_ref().map_or(&[], |it| &it.0);
    SigningBytes::new(domain)
        .number(caller.id.0.into())
        .key(&caller.key)
        .text(&caller.at.host.to_string())
        .number(caller.at.port.into())
        .number(intent)
        .bytes(group)
        .nonce(&join.nonce)
        .number(called.0.0.into())
        .key(called.1)
        .nonce(called.2)
        .bytes(binding)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;
    use crate::machine::chat::{At, Term};
    use crate::model::{KeyPair, Rng};

    #[test]
    fn a_proof_is_good_for_one_connection_one_receiver_and_one_purpose() {
        let keys = |number| KeyPair::from_secret([number; 32]);
        let member = |number: u8| Member {
            id: MemberId(number.into()),
            at: At { host: [127, 0, 0, 1].into(), port: 6_000 },
            key: keys(number).public(),
        };
        let nonce = |seed| Nonce::random(&mut Rng::seed_from_u64(seed));
        let caller = member(1);
        let join = Join {
            sender_id: caller.id,
            term: Term(1),
            group: None,
            intent: Intent::Member,
            membership: vec![caller.clone()],
            nonce: nonce(1),
            life: None,
        };
        let called =
            |number: u8, said| (MemberId(number.into()), keys(number).public(), nonce(said));
        let bytes = |domain, (id, key, said): (MemberId, PublicKey, Nonce), binding| {
            statement(domain, &join, &caller, (id, &key, &said), binding).sha256()
        };
        let right = bytes(PROOF, called(2, 2), None);
        assert_eq!(right, bytes(PROOF, called(2, 2), None));
        for other in [
            bytes(CHALLENGE, called(2, 2), None),
            bytes(PROOF, called(3, 2), None),
            bytes(PROOF, called(2, 3), None),
            bytes(PROOF, called(2, 2), Some(Binding([1; 32]))),
        ] {
            assert_ne!(right, other);
        }
    }
}
