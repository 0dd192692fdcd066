//! Faults of the leader while clients send.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::fleet::Fleet;
use crate::cli::CliError;
use crate::model::Time;
use crate::runtime::thread;

/// Time without a fault before each fault.
const CALM: Duration = Duration::from_secs(2);

/// Time for which a killed leader stays away.
const AWAY: Duration = Duration::from_secs(2);

/// Time for which a frozen leader is frozen.
const FROZEN: Duration = Duration::from_secs(9);

/// Kind of a fault of the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// SIGKILL, and a restart.
    Kill,
    /// SIGSTOP, and SIGCONT.
    Freeze,
}

/// Kind and number of the faults.
#[derive(Clone, Copy, Debug)]
pub(super) struct FaultPlan {
    pub(super) fault: Fault,
    pub(super) times: u32,
}

/// Span of a fault: from its beginning until the group is as before.
#[derive(Clone, Copy, Debug)]
pub(super) struct FaultSpan {
    pub(super) from: Time,
    pub(super) to: Time,
}

/// Begins the faults; each is reported when it is over, and the channel ends after the last.
pub(super) fn begin(
    fleet: &Arc<Fleet>,
    plan: FaultPlan,
) -> Result<Receiver<Result<FaultSpan, CliError>>, CliError> {
    let (tell, told) = bounded(plan.times as usize);
    let fleet = Arc::clone(fleet);
    thread::spawn("bench:faults", move || act(&fleet, plan, &tell))
        .map_err(|source| CliError::System { action: "start a thread", source })?;
    Ok(told)
}

fn act(fleet: &Fleet, plan: FaultPlan, tell: &Sender<Result<FaultSpan, CliError>>) {
    for _ in 0..plan.times {
        let span = fleet.await_leader().and_then(|leader| {
            fleet.pause(CALM);
            let from = fleet.now();
            match plan.fault {
                Fault::Kill => {
                    fleet.kill(leader);
                    fleet.pause(AWAY);
                    let span = FaultSpan { from, to: fleet.now() };
                    fleet.restart(leader).map(|()| span)
                }
                Fault::Freeze => {
                    fleet.freeze(leader, true);
                    fleet.pause(FROZEN);
                    let span = FaultSpan { from, to: fleet.now() };
                    fleet.freeze(leader, false);
                    Ok(span)
                }
            }
        });
        let has_failed = span.is_err();
        if tell.send(span).is_err() || has_failed {
            return;
        }
    }
    // The last one, too, has to come back.
    if let Err(error) = fleet.await_leader() {
        let _ = tell.send(Err(error));
    }
}
