//! A recovery (C14) of a member that does not run: its machine is woken for this one step, with its
//! log and without a network.

use crate::proto::chat::entry::{HostPort, Member, MemberId};
use std::path::Path;

use super::options::ChatStartError;
use super::store::{self, OpenedLog};
use crate::machine::Machine as _;
use crate::machine::chat::{
    ChatMemory, ChatStatus, Command, Config, Effect, ExtraInput, Fx, Input, Record, Replica,
};
use crate::model::PublicKey;
use crate::runtime::clock::Clock;
use crate::runtime::files::os_rng;

/// Lets the member go on alone, as another group; returns its status then.
///
/// # Errors
/// Fails if the log cannot be used, or with `Ok(Err(_))` and the reason why nothing is to be
/// recovered.
pub fn recover(
    log_dir: &Path,
    marker: &Path,
    me: MemberId,
    key: PublicKey,
) -> Result<Result<ChatStatus, &'static str>, ChatStartError> {
    let mut opened = store::open(log_dir, me, key).map_err(ChatStartError::Store)?;
    opened.mark(marker, me).map_err(ChatStartError::Store)?;
    let OpenedLog { mut log, found, .. } = opened;
    let memory = ChatMemory {
        bootstrap: false,
        group: found.group,
        snapshot: found.snapshot,
        records: found.records,
    };
    let machine = |at| -> Result<Replica, ChatStartError> {
        let rng = os_rng().map_err(ChatStartError::Files)?;
        Ok(Replica::new(Config::default(), Member { id: me, at, key }, rng, memory.clone()))
    };
    // Its own address is in its log.
    let nowhere = HostPort { host: std::net::Ipv4Addr::UNSPECIFIED.into(), port: 0 };
    let known = machine(nowhere)?.status().members;
    let at = known.iter().find(|it| it.member.id == me).map_or(nowhere, |it| it.member.at);
    let mut group = machine(at)?;
    let clock = Clock::start();
    let mut fx = Fx::default();
    group.handle(clock.now(), Input::Start, &mut fx);
    if let Err(reason) = group.may_recover() {
        return Ok(Err(reason));
    }
    group.handle(clock.now(), Input::Command(Command::Recover), &mut fx);
    let mut written = 0;
    loop {
        let records: Vec<Record> = fx.drain().filter_map(record).collect();
        if records.is_empty() {
            break;
        }
        log.append(&records).map_err(ChatStartError::Store)?;
        written += records.len() as u64;
        group.handle(clock.now(), Input::Synced { records: written }, &mut fx);
        group.handle(clock.now(), Input::Extra(ExtraInput::Idle), &mut fx);
    }
    Ok(Ok(group.status()))
}

fn record(effect: Effect) -> Option<Record> {
    match effect {
        Effect::Persist(record) => Some(record),
        Effect::Send { .. }
        | Effect::SendAll { .. }
        | Effect::Dial(_)
        | Effect::Hangup { .. }
        | Effect::SetTimer { .. }
        | Effect::StopTimer(_)
        | Effect::Emit(_)
        | Effect::Extra(_) => None,
    }
}
