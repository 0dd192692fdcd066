//! Gates that other systems judge: this node asks them while a plan with such gates is served, and
//! its health tells the answers.
//!
//! Invariants: an answer is of the rollout that is served; a gate without an answer, or whose last
//! question failed, holds a step and fails nothing; during the warm-up nothing is asked.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use crate::machine::rollout::{OutsideGates, ServedState};
use crate::model::Time;
use crate::proto::rollout::{Gate, prometheus_samples};
use crate::runtime::web::client;

/// Time-out of one question.
const WITHIN: Duration = Duration::from_secs(3);

/// Outside gates of the rollout that is served, and the last answers.
#[derive(Debug)]
pub struct OutsideAnswers(Mutex<Asked>);

#[derive(Debug)]
struct Asked {
    wanted: OutsideGates,
    salt: u64,
    /// Number of the rollout, so that a late answer is of no other one.
    number: u64,
    /// Time of the next questions.
    due: Time,
    /// Last answer to each gate by its text: true if it holds; else the reason why there is none.
    answers: BTreeMap<String, Result<bool, String>>,
}

impl Default for OutsideAnswers {
    fn default() -> Self {
        let wanted = OutsideGates::none();
        let (due, answers) = (Time::ZERO, BTreeMap::new());
        Self(Mutex::new(Asked { wanted, salt: 0, number: 0, due, answers }))
    }
}

impl OutsideAnswers {
    fn lock(&self) -> MutexGuard<'_, Asked> {
        self.0.lock().expect("nothing under this lock can panic")
    }

    /// Takes the gates of the state that is served from now on. Those of another rollout are asked
    /// anew, once its warm-up is over.
    pub(super) fn serve(&self, served: &ServedState, now: Time) {
        let mut asked = self.lock();
        if asked.salt != served.salt || asked.wanted != served.outside {
            asked.wanted = served.outside.clone();
            asked.salt = served.salt;
            asked.number += 1;
            asked.due = now.after(served.warm_up);
            asked.answers.clear();
        }
    }

    /// Gates with an answer, each with whether it holds.
    pub(super) fn answers(&self) -> BTreeMap<String, bool> {
        let asked = self.lock();
        let known = asked.answers.iter().filter_map(|(gate, it)| Some((gate, *it.as_ref().ok()?)));
        known.map(|(gate, holds)| (gate.clone(), holds)).collect()
    }

    /// Gates without an answer, each with the reason.
    pub fn failures(&self) -> BTreeMap<String, String> {
        let asked = self.lock();
        let failed = asked.answers.iter().filter_map(|(gate, it)| Some((gate, it.as_ref().err()?)));
        failed.map(|(gate, why)| (gate.clone(), why.clone())).collect()
    }

    /// Asks about all gates, if that is due. `is_stopping` ends it between two questions.
    pub(super) fn ask_if_due(
        &self,
        now: Time,
        is_stopping: impl Fn() -> bool,
        ask: impl Fn(&Gate) -> Result<bool, String>,
    ) {
        let (number, gates) = {
            let mut asked = self.lock();
            if now < asked.due || asked.wanted.gates.is_empty() {
                return;
            }
            asked.due = now.after(asked.wanted.every);
            (asked.number, asked.wanted.gates.clone())
        };
        for gate in gates {
            if is_stopping() {
                return;
            }
            let answer = ask(&gate);
            let mut asked = self.lock();
            if asked.number != number {
                return;
            }
            let (name, failure) = (gate.to_string(), answer.clone().err());
            let before = asked.answers.insert(name, answer);
            drop(asked);
            match (failure, before.and_then(Result::err)) {
                (Some(why), before) if before.as_ref() != Some(&why) => {
                    log::warn!("{gate} is not answered: {why}");
                }
                (None, Some(_)) => log::info!("{gate} is answered again"),
                (Some(_) | None, _) => {}
            }
        }
    }
}

/// Asks about one gate.
pub(super) fn ask(gate: &Gate) -> Result<bool, String> {
    match gate {
        Gate::Own { .. } => Err("no other system judges it".to_owned()),
        Gate::Http(url) => client::get(url, WITHIN).map(|it| (200..300).contains(&it.0)),
        Gate::Prometheus(gate) => {
            let (status, body) = client::get(&gate.request(), WITHIN)?;
            let samples = prometheus_samples(&body).map_err(|why| match status {
                200 => why,
                _ => format!("{why} (status {status})"),
            })?;
            gate.holds(&samples).ok_or_else(|| "its answer has no data".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::proto::rollout::RoutingState;

    const READY: &str = "http:http://host/ready";
    const UP: &str = "prom:up>0@http://p:9090";

    fn served(salt: u64, gates: &[&str]) -> ServedState {
        let state = RoutingState::initial("v1".parse().unwrap(), "v2".parse().unwrap());
        let gates = gates.iter().map(|it| it.parse().unwrap()).collect();
        let outside = OutsideGates { gates, every: Duration::from_secs(2) };
        let warm_up = Duration::from_secs(5);
        ServedState { salt, outside, warm_up, ..ServedState::new(state) }
    }

    fn at(secs: u64) -> Time {
        Time::ZERO.after(Duration::from_secs(secs))
    }

    #[test]
    fn gates_are_asked_after_the_warm_up_and_then_as_often_as_they_say() {
        let outside = OutsideAnswers::default();
        let count = Cell::new(0);
        let ask_at = |secs| {
            outside.ask_if_due(
                at(secs),
                || false,
                |_| {
                    count.set(count.get() + 1);
                    Ok(true)
                },
            );
            count.get()
        };
        assert_eq!(ask_at(1), 0, "there are none");
        outside.serve(&served(7, &[READY, UP]), at(1));
        assert_eq!([5, 6, 7, 8, 9].map(ask_at), [0, 2, 2, 4, 4]);
        // A step of the same rollout changes nothing, another rollout all.
        outside.serve(&served(7, &[READY, UP]), at(9));
        assert_eq!(outside.answers().len(), 2);
        outside.serve(&served(8, &[READY, UP]), at(9));
        assert!(outside.answers().is_empty());
        assert_eq!([10, 13, 14].map(ask_at), [4, 4, 6]);
        outside.serve(&served(8, &[]), at(14));
        assert!(outside.answers().is_empty());
        assert_eq!(ask_at(100), 6);
    }

    #[test]
    fn what_is_not_answered_is_no_answer_and_is_told() {
        let outside = OutsideAnswers::default();
        outside.serve(&served(7, &[READY, UP]), at(0));
        let down = |gate: &Gate| match gate {
            Gate::Http(_) => Ok(false),
            _ => Err("it is down".to_owned()),
        };
        outside.ask_if_due(at(5), || false, down);
        assert_eq!(outside.answers(), [(READY.to_owned(), false)].into());
        assert_eq!(outside.failures(), [(UP.to_owned(), "it is down".to_owned())].into());
        outside.ask_if_due(at(7), || false, |_| Ok(true));
        assert_eq!((outside.answers().len(), outside.failures().len()), (2, 0));
        // An answer that was there before is none any more.
        outside.ask_if_due(at(9), || false, down);
        assert!(!outside.answers().contains_key(UP));
        outside.ask_if_due(at(11), || true, |_| panic!("it stops"));
    }

    #[test]
    fn an_answer_that_comes_late_is_of_no_other_rollout() {
        let outside = OutsideAnswers::default();
        outside.serve(&served(7, &[READY]), at(0));
        outside.ask_if_due(
            at(5),
            || false,
            |_| {
                outside.serve(&served(8, &[READY]), at(5));
                Ok(false)
            },
        );
        assert!(outside.answers().is_empty());
    }
}
