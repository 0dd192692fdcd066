//! The progress of a rollout: a function of the committed transactions, so every node knows the
//! same (T5); and the effect of each kind of transaction on the state.

use serde::{Deserialize, Serialize};

use crate::proto::rollout::{
    AbortCause, BASIS_POINTS, ModelId, Plan, RoutingState, TxId, TxKind, TxProposal,
};

/// Phase of a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The rollout takes its steps.
    Running,
    /// The rollout waits for a resume.
    Paused,
    /// The new version is the stable one.
    Finished,
    /// The rollout was rolled back.
    RolledBack,
    /// The rollout was aborted.
    Aborted,
}

/// Progress of the last rollout that was begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutProgress {
    /// The transaction that began it.
    pub id: TxId,
    /// Plan of the rollout.
    pub plan: Plan,
    /// Index of the plan's step that is in force, from 0.
    pub step: usize,
    /// Phase of the rollout.
    pub phase: Phase,
}

impl RolloutProgress {
    /// Returns the progress after `proposal` is committed on top of `before`.
    #[must_use]
    pub fn after(before: Option<Self>, proposal: &TxProposal) -> Option<Self> {
        if let Some(plan) = &proposal.plan {
            let (id, plan) = (proposal.txid.clone(), plan.clone());
            return Some(Self { id, plan, step: 0, phase: Phase::Running });
        }
        let mut progress = before?;
        let share = proposal.state.canary_share();
        let step = progress.plan.steps.iter().take_while(|it| **it < share).count();
        progress.phase = match proposal.txid.kind {
            TxKind::Start | TxKind::Retry => Phase::Running,
            TxKind::Step | TxKind::Resume => {
                progress.step = step;
                Phase::Running
            }
            // A promote does not end a pause; only a resume does.
            TxKind::Promote => {
                progress.step = step;
                progress.phase
            }
            TxKind::Finish => {
                progress.step = progress.plan.steps.len().saturating_sub(1);
                Phase::Finished
            }
            TxKind::Rollback => {
                progress.step = 0;
                Phase::RolledBack
            }
            TxKind::Abort => {
                progress.step = 0;
                Phase::Aborted
            }
            TxKind::Pause => {
                // By the share, because the step itself may have been forgotten.
                progress.step = step;
                Phase::Paused
            }
            TxKind::Roster | TxKind::Serve => progress.phase,
        };
        Some(progress)
    }

    /// True if the rollout is neither finished nor given up.
    pub const fn is_live(&self) -> bool {
        matches!(self.phase, Phase::Running | Phase::Paused)
    }

    /// True if the plan's last step is in force: everything goes to the new version, which has yet
    /// to prove itself.
    pub fn is_last_step(&self) -> bool {
        self.step + 1 >= self.plan.steps.len()
    }
}

/// Reason why a command or proposal cannot be tried now; nothing changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CommandRefusal {
    pub(super) cause: AbortCause,
    pub(super) reason: String,
    pub(super) running: Option<TxId>,
}

impl CommandRefusal {
    pub(super) fn new(cause: AbortCause, reason: impl Into<String>) -> Self {
        Self { cause, reason: reason.into(), running: None }
    }
}

/// Returns stable model, canary model and the canary's share after a transaction of this kind.
pub(super) fn target(
    kind: TxKind,
    is_full: bool,
    now: &RoutingState,
    progress: Option<&RolloutProgress>,
    plan: Option<&Plan>,
    is_braked: bool,
) -> Result<(ModelId, ModelId, u32), CommandRefusal> {
    let nothing = |reason: &str| CommandRefusal::new(AbortCause::Nothing, reason);
    let same = (now.stable_model_id.clone(), now.canary_model_id.clone());
    let live = progress.filter(|it| it.is_live());
    match kind {
        TxKind::Roster | TxKind::Serve => Ok((same.0, same.1, now.canary_share())),
        TxKind::Start | TxKind::Retry => {
            let plan = plan.ok_or_else(|| nothing("there is no plan to begin"))?;
            if let Some(progress) = live {
                let reason = format!("the rollout {} is not over", progress.id);
                let running = Some(progress.id.clone());
                return Err(CommandRefusal {
                    running,
                    ..CommandRefusal::new(AbortCause::Busy, reason)
                });
            }
            if plan.from != now.stable_model_id {
                let reason = format!("{} is served as stable, not {}", same.0, plan.from);
                return Err(CommandRefusal::new(AbortCause::Nothing, reason));
            }
            Ok((plan.from.clone(), plan.to.clone(), plan.steps[0]))
        }
        TxKind::Rollback => match progress {
            Some(RolloutProgress {
                plan,
                phase: Phase::Running | Phase::Paused | Phase::Finished,
                ..
            }) => Ok((plan.from.clone(), plan.to.clone(), 0)),
            Some(_) | None => Err(nothing("there is no rollout to undo")),
        },
        TxKind::Step
        | TxKind::Promote
        | TxKind::Finish
        | TxKind::Abort
        | TxKind::Pause
        | TxKind::Resume => {
            let progress = live.ok_or_else(|| nothing("no rollout is under way"))?;
            let is_paused = progress.phase == Phase::Paused;
            match kind {
                TxKind::Pause if is_paused => Err(nothing("the rollout is paused already")),
                TxKind::Resume if !is_paused && !is_braked => {
                    Err(nothing("the rollout is not paused"))
                }
                TxKind::Pause | TxKind::Resume => Ok((same.0, same.1, now.canary_share())),
                TxKind::Abort => Ok((same.0, same.1, 0)),
                TxKind::Finish => Ok((same.1.clone(), same.1, 0)),
                TxKind::Start
                | TxKind::Step
                | TxKind::Promote
                | TxKind::Rollback
                | TxKind::Retry
                | TxKind::Roster
                | TxKind::Serve => match progress.plan.steps.get(progress.step + 1) {
                    None => Ok((same.1.clone(), same.1, 0)),
                    Some(_) if is_full => Ok((same.0, same.1, BASIS_POINTS)),
                    Some(share) => Ok((same.0, same.1, *share)),
                },
            }
        }
    }
}
