//! The progress of a rollout: a function of the committed transactions, so every node knows the
//! same (T5); and the effect of each kind of transaction on the state.

use serde::{Deserialize, Serialize};

use crate::proto::rollout::{
    BASIS_POINTS, Cause, Kind, ModelId, Plan, Proposal, RoutingState, TxId,
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

/// The last rollout that was begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Course {
    /// The transaction that began it.
    pub id: TxId,
    /// Plan of the rollout.
    pub plan: Plan,
    /// Index of the plan's step that is in force, from 0.
    pub step: usize,
    /// Phase of the rollout.
    pub phase: Phase,
}

impl Course {
    /// Returns the course after `proposal` is committed on top of `before`.
    #[must_use]
    pub fn after(before: Option<Self>, proposal: &Proposal) -> Option<Self> {
        if let Some(plan) = &proposal.plan {
            let (id, plan) = (proposal.txid.clone(), plan.clone());
            return Some(Self { id, plan, step: 0, phase: Phase::Running });
        }
        let mut course = before?;
        let share = proposal.state.canary_share();
        let step = course.plan.steps.iter().take_while(|it| **it < share).count();
        course.phase = match proposal.txid.kind {
            Kind::Start | Kind::Retry => Phase::Running,
            Kind::Step | Kind::Resume => {
                course.step = step;
                Phase::Running
            }
            // A promote does not end a pause; only a resume does.
            Kind::Promote => {
                course.step = step;
                course.phase
            }
            Kind::Finish => {
                course.step = course.plan.steps.len().saturating_sub(1);
                Phase::Finished
            }
            Kind::Rollback => {
                course.step = 0;
                Phase::RolledBack
            }
            Kind::Abort => {
                course.step = 0;
                Phase::Aborted
            }
            Kind::Pause => {
                // By the share, because the step itself may have been forgotten.
                course.step = step;
                Phase::Paused
            }
            Kind::Roster => course.phase,
        };
        Some(course)
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
pub(super) struct Refusal {
    pub(super) cause: Cause,
    pub(super) reason: String,
    pub(super) running: Option<TxId>,
}

impl Refusal {
    pub(super) fn new(cause: Cause, reason: impl Into<String>) -> Self {
        Self { cause, reason: reason.into(), running: None }
    }
}

/// Returns stable model, canary model and the canary's share after a transaction of this kind.
pub(super) fn target(
    kind: Kind,
    is_full: bool,
    now: &RoutingState,
    course: Option<&Course>,
    plan: Option<&Plan>,
    is_braked: bool,
) -> Result<(ModelId, ModelId, u32), Refusal> {
    let nothing = |reason: &str| Refusal::new(Cause::Nothing, reason);
    let same = (now.stable_model_id.clone(), now.canary_model_id.clone());
    let live = course.filter(|it| it.is_live());
    match kind {
        Kind::Roster => Ok((same.0, same.1, now.canary_share())),
        Kind::Start | Kind::Retry => {
            let plan = plan.ok_or_else(|| nothing("there is no plan to begin"))?;
            if let Some(course) = live {
                let reason = format!("the rollout {} is not over", course.id);
                let running = Some(course.id.clone());
                return Err(Refusal { running, ..Refusal::new(Cause::Busy, reason) });
            }
            if plan.from != now.stable_model_id {
                let reason = format!("{} is served as stable, not {}", same.0, plan.from);
                return Err(Refusal::new(Cause::Nothing, reason));
            }
            Ok((plan.from.clone(), plan.to.clone(), plan.steps[0]))
        }
        Kind::Rollback => match course {
            Some(Course {
                plan, phase: Phase::Running | Phase::Paused | Phase::Finished, ..
            }) => Ok((plan.from.clone(), plan.to.clone(), 0)),
            Some(_) | None => Err(nothing("there is no rollout to undo")),
        },
        Kind::Step | Kind::Promote | Kind::Finish | Kind::Abort | Kind::Pause | Kind::Resume => {
            let course = live.ok_or_else(|| nothing("no rollout is under way"))?;
            let is_paused = course.phase == Phase::Paused;
            match kind {
                Kind::Pause if is_paused => Err(nothing("the rollout is paused already")),
                Kind::Resume if !is_paused && !is_braked => {
                    Err(nothing("the rollout is not paused"))
                }
                Kind::Pause | Kind::Resume => Ok((same.0, same.1, now.canary_share())),
                Kind::Abort => Ok((same.0, same.1, 0)),
                Kind::Finish => Ok((same.1.clone(), same.1, 0)),
                Kind::Start
                | Kind::Step
                | Kind::Promote
                | Kind::Rollback
                | Kind::Retry
                | Kind::Roster => match course.plan.steps.get(course.step + 1) {
                    None => Ok((same.1.clone(), same.1, 0)),
                    Some(_) if is_full => Ok((same.0, same.1, BASIS_POINTS)),
                    Some(share) => Ok((same.0, same.1, *share)),
                },
            }
        }
    }
}
