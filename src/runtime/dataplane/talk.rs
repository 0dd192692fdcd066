//! One client's connection: request after request, each answered in one write.

use std::sync::Arc;

use super::answers::{Going, refusal, refusal_of_end, write_own};
use super::ear::{Ear, End, HOARD_BYTES};
use super::live::Live;
use super::predict::Desk;
use super::{Shared, texts};
use crate::proto::http::{Framing, Outline, room};

/// Resource at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Predict,
    Routing,
    Health,
    Metrics,
}

impl Place {
    fn at(path: &str) -> Option<Self> {
        Some(match path {
            "/predict" => Self::Predict,
            "/routing" | "/routing/state" => Self::Routing,
            "/health" | "/health/snapshot" => Self::Health,
            "/metrics" => Self::Metrics,
            _ => return None,
        })
    }

    /// Methods that the resource has.
    const fn methods(self) -> &'static str {
        match self {
            Self::Predict => "POST",
            Self::Routing | Self::Health | Self::Metrics => "GET, HEAD",
        }
    }
}

/// Facts about a head that are needed before its body is read.
#[derive(Clone, Copy, Debug)]
struct Facts {
    place: Option<Place>,
    is_allowed: bool,
    is_head: bool,
    framing: Framing,
    expects_continue: bool,
    going: Going,
}

impl Facts {
    fn of(outline: &Outline<'_, '_>) -> Self {
        let place = Place::at(outline.path);
        let is_one = |place: Place| place.methods().split(", ").any(|it| it == outline.method);
        Self {
            place,
            is_allowed: place.is_some_and(is_one),
            is_head: outline.method == "HEAD",
            framing: outline.framing,
            expects_continue: outline.expects_continue,
            going: match (outline.keep_alive, outline.minor) {
                (false, _) => Going::Off,
                (true, 0) => Going::OnAfterAll,
                (true, _) => Going::On,
            },
        }
    }
}

/// A client's connection.
pub(super) struct Talk<'a> {
    shared: &'a Shared,
    ear: Ear<'a>,
    desk: Desk,
    out: Vec<u8>,
    live: Option<Arc<Live>>,
    generation: u64,
}

impl<'a> Talk<'a> {
    pub(super) fn new(shared: &'a Shared, ear: Ear<'a>, desk: Desk) -> Self {
        let (out, live, generation) = Default::default();
        Self { shared, ear, desk, out, live, generation }
    }

    /// Serves the connection to its end.
    pub(super) fn serve(mut self) {
        let end = self.converse();
        let counters = &self.shared.counters;
        self.out.clear();
        if matches!(end, End::Idle) {
            counters.closed_idle.add(1);
        }
        let is_refused = refusal_of_end(&mut self.out, &end, &self.shared.house.limits);
        if is_refused {
            counters.refused.add(1);
        }
        let is_told = is_refused && self.ear.line.write_all(&self.out).is_ok();
        if is_told || matches!(end, End::Done) {
            self.ear.part();
        }
    }

    /// Answers request after request; returns the reason why there are no more.
    fn converse(&mut self) -> End {
        loop {
            match self.turn() {
                Ok(true) => {}
                Ok(false) => return End::Done,
                Err(end) => return end,
            }
        }
    }

    /// Answers one request; returns whether another may follow.
    fn turn(&mut self) -> Result<bool, End> {
        let head_len = self.ear.hear_head()?;
        let mut facts = {
            let mut room = room();
            Facts::of(&Outline::parse(self.ear.head(head_len), &mut room).map_err(End::Fault)?)
        };
        self.shared.counters.requests.add(1);
        if !self.shared.house.lets_go_on() {
            facts.going = Going::Off;
        }
        self.out.clear();
        let Some(place) = facts.place.filter(|_| facts.is_allowed) else {
            // An unwanted body is not read; the next request would begin behind it.
            if facts.framing != Framing::Length(0) {
                facts.going = Going::Off;
            }
            self.refuse(facts);
            return self.say(facts, head_len);
        };
        let len = self.ear.hear_body(head_len, facts.framing, facts.expects_continue)?;
        let live = self.look();
        match (place, live) {
            (Place::Predict, Some(live)) => {
                let mut room = room();
                let outline = Outline::parse(self.ear.head(head_len), &mut room);
                let outline = outline.map_err(End::Fault)?;
                let body = self.ear.body(head_len, facts.framing);
                self.desk.answer(&live, &outline, body, facts.going, &mut self.out);
                self.live = Some(live);
            }
            (Place::Predict | Place::Routing, None) => {
                let reason = "this node does not know yet what its fleet serves; peer rollout \
                              status shows for whom it waits";
                refusal(&mut self.out, 503, "not_ready", reason, &[], facts.going);
            }
            (Place::Routing, Some(live)) => {
                write_own(&mut self.out, 200, texts::JSON, &[], &live.json, facts.going);
                self.live = Some(live);
            }
            (Place::Health, live) => {
                let text = self.shared.health_json().into_bytes();
                write_own(&mut self.out, 200, texts::JSON, &[], &text, facts.going);
                self.live = live;
            }
            (Place::Metrics, live) => {
                let text = self.shared.metrics().into_bytes();
                write_own(&mut self.out, 200, texts::METRICS, &[], &text, facts.going);
                self.live = live;
            }
        }
        self.say(facts, len)
    }

    /// Writes `self.out`, and goes on behind a request of `len` bytes.
    fn say(&mut self, facts: Facts, len: usize) -> Result<bool, End> {
        let mut bytes = self.out.as_slice();
        if facts.is_head {
            let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
            bytes = &bytes[..end.map_or(bytes.len(), |end| end + 4)];
        }
        if self.ear.line.write_all(bytes).is_err() {
            self.shared.counters.write_failed.add(1);
            return Err(End::Broken);
        }
        self.ear.forget(len);
        if self.out.len() > HOARD_BYTES {
            self.out = Vec::new();
        }
        Ok(facts.going != Going::Off)
    }

    fn refuse(&mut self, facts: Facts) {
        self.shared.counters.refused.add(1);
        match facts.place {
            None => {
                let reason = "there are /predict, /routing, /health and /metrics";
                refusal(&mut self.out, 404, "no_such_path", reason, &[], facts.going);
            }
            Some(place) => {
                let methods = place.methods();
                let allow = format!("Allow: {methods}\r\n");
                let reason = format!("this path has {methods}");
                let allow = allow.as_bytes();
                refusal(&mut self.out, 405, "no_such_method", &reason, allow, facts.going);
            }
        }
    }

    /// The state that is served now. The asking request keeps it.
    fn look(&mut self) -> Option<Arc<Live>> {
        if self.shared.generation() == self.generation {
            return self.live.take();
        }
        let (live, generation) = self.shared.current();
        self.generation = generation;
        live
    }
}
