//! A member of a Byzantine order inside a peer, at the peer's port and with its key.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use ::log::Level;
use crossbeam_channel::{Receiver, Sender, bounded, select};
use serde_json::{Value, json};

use super::args::{OrderFlag, OrderNodeArgs};
use super::latency::FinalLatency;
use super::local_server::{LocalServer, handler};
use super::report::{self, group_line};
use crate::cli::CliError;
use crate::cli::log::LogLine;
use crate::cli::run::{Running, signals};
use crate::machine::bft::{Config, Event, cause_of_wish};
use crate::model::{KeyPair, Now};
use crate::network::{Network, Order, OrderRoster, OrderedLog, StartError};
use crate::runtime::clock::Clock;
use crate::runtime::control::{self, Control};
use crate::runtime::driver::options::EventSink;
use crate::runtime::files::{DataDir, FilesError, identity_of};
use crate::runtime::order::{OrderEngine, OrderNotification};

/// Largest number of waiting reports; those without room are lost to the log alone.
const TOLD_MAX: usize = 4 * 1024;

/// Settings of a member: the checked flags.
pub(in crate::cli) struct Settings {
    name: String,
    founders: Founders,
    log_dir: PathBuf,
    is_restored: bool,
    /// True if certificates of the seeds are put into the order.
    keeps_certificates: bool,
    config: Config,
    /// Sender of the log once it runs, if rollouts keep their decisions there.
    hand_out: Option<Sender<Arc<OrderedLog>>>,
}

/// Members with which the group is founded.
enum Founders {
    /// Those of a roster that all hold.
    Roster(OrderRoster),
    /// So many members of the fleet, which find each other.
    Fleet(usize),
}

impl Settings {
    /// Channel of the log, which it sends once it runs.
    pub(in crate::cli) fn hand_out(&mut self) -> Receiver<Arc<OrderedLog>> {
        let (tell, told) = bounded(1);
        self.hand_out = Some(tell);
        told
    }

    /// Reads the roster; `None` if the peer takes part in no order.
    ///
    /// # Errors
    /// Fails if the roster cannot be read.
    pub(in crate::cli) fn new(
        args: &OrderNodeArgs,
        log_dir: &Path,
    ) -> Result<Option<Self>, CliError> {
        let Some(flag) = &args.order else { return Ok(None) };
        let settings = match args.order_size {
            None => Self::of(flag, log_dir)?,
            Some(size) => {
                let name = flag.bare_name().ok_or_else(|| {
                    CliError::Usage(
                        "with --order-size the fleet founds the order: say --order NAME, a name of \
                         1 to 64 letters, digits and -_., without a roster"
                            .to_owned(),
                    )
                })?;
                Self::with(name, Founders::Fleet(size.into()), log_dir)
            }
        };
        let patience = args.patience.0;
        let default = Config::default();
        if patience < default.heartbeat / 8 || patience > default.patience_max {
            return Err(CliError::Usage("--patience is from 100ms to 16s".to_owned()));
        }
        let config = Config { patience, ..default };
        let (is_restored, keeps_certificates) = (args.restored, args.order_certificates);
        Ok(Some(Self { is_restored, keeps_certificates, config, ..settings }))
    }

    /// Settings of a member that has no other flags.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(in crate::cli) fn of(flag: &OrderFlag, log_dir: &Path) -> Result<Self, CliError> {
        let file = flag.roster.display();
        let text = std::fs::read_to_string(&flag.roster).map_err(|error| {
            CliError::Usage(format!(
                "cannot read the roster {file}: {error}; it has a line for each member, as peer \
                 order keygen --id N --port P prints it on each machine"
            ))
        })?;
        let roster = OrderRoster::parse(&flag.roster, &text).map_err(CliError::Usage)?;
        Ok(Self::with(flag.name.clone(), Founders::Roster(roster), log_dir))
    }

    fn with(name: String, founders: Founders, log_dir: &Path) -> Self {
        Self {
            name,
            founders,
            log_dir: log_dir.to_owned(),
            is_restored: false,
            keeps_certificates: false,
            config: Config::default(),
            hand_out: None,
        }
    }

    /// True if the fleet founds the order, without a roster.
    pub(in crate::cli) const fn is_by_fleet(&self) -> bool {
        matches!(self.founders, Founders::Fleet(_))
    }

    /// Members with which the group was founded, if a roster names them.
    pub(in crate::cli) const fn roster(&self) -> Option<&OrderRoster> {
        match &self.founders {
            Founders::Roster(roster) => Some(roster),
            Founders::Fleet(_) => None,
        }
    }

    /// Number of members with which the group is founded.
    pub(in crate::cli) fn size(&self) -> usize {
        match &self.founders {
            Founders::Roster(roster) => roster.committee().voters().len(),
            Founders::Fleet(size) => *size,
        }
    }
}

/// Key pair of the member whose directory is `dir`; a new one is made if there is none. A node has
/// one key: that of the peer at this port.
///
/// # Errors
/// Fails if the disk refuses, or a key file is damaged.
pub(in crate::cli) fn member_keys(
    dir: &DataDir,
    data: &Path,
    port: u16,
) -> Result<KeyPair, CliError> {
    if let Some(keys) = dir.stored_identity()? {
        return Ok(keys);
    }
    let keys = identity_of(data, "peer", port)?;
    dir.store_identity(&keys)?;
    Ok(keys)
}

/// A member whose directory is this process's alone, before it starts.
pub(in crate::cli) struct OrderService {
    settings: Settings,
    dir: DataDir,
}

impl OrderService {
    /// Takes the directory of the member at this port in `data`.
    ///
    /// # Errors
    /// Fails if another process has it, or the disk refuses.
    pub(in crate::cli) fn prepare(
        settings: Settings,
        data: &Path,
        port: u16,
    ) -> Result<Self, CliError> {
        if port == 0 {
            let text = "a member of an order needs a --port of its own: the roster names it";
            return Err(CliError::Usage(text.to_owned()));
        }
        let dir = DataDir::open(data, "order", port).map_err(|error| match error {
            FilesError::Locked { dir } => CliError::Failed(format!(
                "this member is running already ({} is in use); stop that process first",
                dir.display()
            )),
            other @ (FilesError::Io { .. }
            | FilesError::DirExposed { .. }
            | FilesError::KeyExposed { .. }
            | FilesError::KeyMalformed { .. }
            | FilesError::NoEntropy { .. }) => other.into(),
        })?;
        Ok(Self { settings, dir })
    }
}

/// Function that hears all that a member reports, on the engine's thread: it must not block.
pub(in crate::cli) type Hear = Arc<dyn Fn(Now, &OrderNotification) + Send + Sync>;

impl OrderService {
    /// Directory of the member.
    pub(in crate::cli) const fn dir(&self) -> &DataDir {
        &self.dir
    }

    /// Settings of the member.
    pub(in crate::cli) const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Starts the member in the peer of `network`, once its order is founded; `None` if it is to
    /// `stop` before. `hear` is told its reports too.
    ///
    /// # Errors
    /// Fails if the log cannot be used, the peer's key is not in the roster, or the fleet cannot
    /// found an order.
    pub(in crate::cli) fn start(
        self,
        network: &Arc<Network>,
        hear: &Hear,
        stop: &Receiver<()>,
    ) -> Result<Option<RunningOrder>, CliError> {
        let Settings { name, founders, log_dir, is_restored, config, hand_out, .. } = self.settings;
        let (tell, notifications) = bounded(TOLD_MAX);
        let latency = Arc::default();
        let news = || -> Option<Box<dyn EventSink<OrderNotification>>> {
            let (tell, hear, latency) = (tell.clone(), Arc::clone(hear), Arc::clone(&latency));
            Some(Box::new(News { tell, hear, latency }))
        };
        let (order, log_dir) = match &founders {
            Founders::Fleet(size) => (Order::byzantine_of(*size), log_dir),
            Founders::Roster(roster) => {
                let id = roster.id_of(&network.key()).unwrap_or_default();
                (Order::byzantine(roster), log_dir.join(format!("order_{id}")))
            }
        };
        let order = order.data(&log_dir).config(config);
        let order = if is_restored { order.restored() } else { order };
        let failed = |error| start_failed(error, &log_dir);
        let (log, roster, name) = match founders {
            Founders::Fleet(_) => {
                let words = (tell_of_founding, || !signals::is_told(stop));
                let founded = OrderedLog::found(network, (&name, order), &news, words);
                let Some(it) = founded.map_err(failed)? else { return Ok(None) };
                (it.log, it.roster, it.name)
            }
            Founders::Roster(roster) => {
                let log = OrderedLog::start(network, &name, order, news()).map_err(failed)?;
                (log, roster, name)
            }
        };
        let log = Arc::new(log);
        if self.settings.keeps_certificates {
            OrderedLog::keep_certificates(&log, network)?;
        }
        if let Some(tell) = hand_out {
            // Nobody takes it if the rollouts have ended.
            let _ = tell.send(Arc::clone(&log));
        }
        let status = log.machine_status();
        if let Some(status) = &status {
            let (text, wall) = (group_line(status), Clock::start().now().wall);
            let fields = json!({
                "group": status.group, "name": name, "id": status.me,
                "members": status.members.len(), "liars_borne": status.liars_borne,
                "quorum": status.quorum,
            });
            LogLine::new(Level::Info, "order_started", text, fields).log(wall);
        }
        let local = Arc::new(LocalServer::new(log, name, Arc::clone(network)));
        let control = control::serve(&self.dir, handler(Arc::downgrade(&local)));
        let control =
            control.map_err(|source| CliError::System { action: "take local commands", source })?;
        let counts = Arc::default();
        let running =
            RunningOrder { local, roster, notifications, counts, latency, control, _dir: self.dir };
        Ok(Some(running))
    }
}

/// Logs the state of a founding.
fn tell_of_founding(text: &str) {
    let line = LogLine::new(Level::Info, "order_founding", text.to_owned(), json!({}));
    line.log(Clock::start().now().wall);
}

fn start_failed(error: StartError, log_dir: &Path) -> CliError {
    if let StartError::Order(error) = error {
        return CliError::Failed(format!("{error} (the log is in {})", log_dir.display()));
    }
    error.into()
}

/// Sink that passes on what is news for an operator; entries and proposals are not. The function
/// hears all of it.
struct News {
    tell: Sender<(Now, OrderNotification)>,
    hear: Hear,
    latency: Arc<Mutex<FinalLatency>>,
}

impl EventSink<OrderNotification> for News {
    fn take(&self, now: Now, told: OrderNotification) -> bool {
        (self.hear)(now, &told);
        let mut latency = self.latency.lock().expect("nothing under this lock can panic");
        latency.hear(now, &told);
        drop(latency);
        let is_news = !matches!(
            told,
            OrderNotification::Delivered(_)
                | OrderNotification::Event(Event::Pending(_) | Event::Proposed(_))
        );
        !is_news || self.tell.take(now, told)
    }
}

/// Numbers of events since the start.
#[derive(Default)]
struct Counts {
    views: u64,
    /// Wishes for another leader, by cause.
    suspicions: BTreeMap<&'static str, u64>,
    halts: u64,
    dropped: BTreeMap<&'static str, u64>,
}

/// A running member, with its control socket.
pub(in crate::cli) struct RunningOrder {
    local: Arc<LocalServer>,
    roster: OrderRoster,
    notifications: Receiver<(Now, OrderNotification)>,
    counts: Arc<Mutex<Counts>>,
    latency: Arc<Mutex<FinalLatency>>,
    control: Control,
    _dir: DataDir,
}

impl Running for RunningOrder {
    fn status(&self) -> Box<dyn Fn() -> Value + Send + Sync> {
        let (local, counts) = (Arc::downgrade(&self.local), Arc::clone(&self.counts));
        let latency = Arc::clone(&self.latency);
        Box::new(move || {
            let Some(local) = local.upgrade() else { return Value::Null };
            let Some(it) = local.log.machine_status() else { return Value::Null };
            let counts = counts.lock().expect("nothing under this lock can panic");
            let latency = latency.lock().expect("nothing under this lock can panic");
            let away = it.members.iter().filter(|it| !it.reached).map(|it| it.member.id);
            let silent_members: Vec<_> = report::silent_members(&it).collect();
            let liars: std::collections::BTreeSet<_> =
                it.evidence.iter().map(|it| it.member()).collect();
            json!({
                "name": local.name,
                "group": it.group,
                "id": it.me,
                "epoch": it.epoch,
                "view": it.view,
                "active": it.active,
                "leader": it.leader,
                "members": it.members.len(),
                "liars_borne": it.liars_borne,
                "quorum": it.quorum,
                "reached": it.reached,
                "away": away.collect::<Vec<_>>(),
                "slots": it.slot,
                "places": it.place,
                "pending": it.pending,
                "silent_members": silent_members,
                "is_silent": it.silent.is_some(),
                "silent": it.silent,
                "evidence": it.evidence.len(),
                "liars": liars,
                "views": counts.views,
                "suspicions": counts.suspicions,
                "halts": counts.halts,
                "final_latency_ms": latency.seen(),
                "dropped": counts.dropped,
            })
        })
    }

    fn attend(&self, stop: &Receiver<()>) -> Result<(), CliError> {
        loop {
            select! {
                recv(self.notifications) -> notification => {
                    let Ok((now, notification)) = notification else { return Ok(()) };
                    self.take(now, notification)?;
                }
                recv(stop) -> _ => return Ok(()),
            }
        }
    }

    fn stop(&self) {
        self.local.log.stop();
    }

    fn join(self) {
        drop(self.control);
    }
}

impl RunningOrder {
    /// Engine of the member.
    pub(in crate::cli) fn engine(&self) -> OrderEngine {
        self.local.log.engine().expect("an order of this service is Byzantine").clone()
    }

    /// Members with which the group was founded, and that joined later by the roster.
    pub(in crate::cli) const fn roster(&self) -> &OrderRoster {
        &self.roster
    }

    /// Name of the order.
    pub(in crate::cli) fn name(&self) -> &str {
        &self.local.name
    }

    /// Counts and logs what the engine reports.
    ///
    /// # Errors
    /// Fails if the member cannot go on.
    fn take(&self, now: Now, notification: OrderNotification) -> Result<(), CliError> {
        match notification {
            OrderNotification::Delivered(_) => Ok(()),
            OrderNotification::Note(text) => {
                LogLine::new(Level::Info, "order_note", text, json!({})).log(now.wall);
                Ok(())
            }
            OrderNotification::Failed(text) => Err(CliError::Failed(text)),
            OrderNotification::Event(event) => self.on_event(now, &event),
        }
    }

    fn on_event(&self, now: Now, event: &Event) -> Result<(), CliError> {
        let members = || self.local.log.status().map_or(0, |it| it.members);
        let mut counts = self.counts.lock().expect("nothing under this lock can panic");
        match event {
            Event::ViewBegan { .. } => counts.views += 1,
            Event::Suspected { reason, .. } => {
                *counts.suspicions.entry(cause_of_wish(reason)).or_default() += 1;
            }
            Event::Halted { .. } => counts.halts += 1,
            Event::Dropped(why) => {
                let count = counts.dropped.entry(why).or_default();
                *count += 1;
                if !matches!(*count, 1 | 10 | 100) {
                    return Ok(());
                }
            }
            Event::Stopped { reason } => {
                report::line(event, members).into_iter().for_each(|it| it.log(now.wall));
                return Err(CliError::Failed(format!(
                    "this member takes no further part in the order: {reason}; compare its log \
                     with another member's: peer order verify"
                )));
            }
            Event::Resumed
            | Event::Equivocation(_)
            | Event::Hole { .. }
            | Event::EpochBegan { .. }
            | Event::Pending(_)
            | Event::Rejected { .. }
            | Event::Proposed(_)
            | Event::Reached(_)
            | Event::Lost(_)
            | Event::Gone => {}
        }
        drop(counts);
        report::line(event, members).into_iter().for_each(|it| it.log(now.wall));
        Ok(())
    }
}
