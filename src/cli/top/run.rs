//! The run of `peer top`: one picture as text, or the screen until it is ended.

use std::io;
use std::time::Duration;

use crossbeam_channel::{select, tick};
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::Event;
use ratatui::crossterm::terminal::size;
use unicode_width::UnicodeWidthStr as _;

use super::args::{PictureSize, TopArgs};
use super::draw::draw;
use super::look::{self, Channels, News, Observer};
use super::model::TopModel;
use super::screen::{TopAction, TopScreen};
use crate::cli::CliError;
use crate::cli::output::{print, wants_color};
use crate::cli::run::signals;
use crate::cli::terminal::{self, Job, Terminal};
use crate::model::WallTime;
use crate::runtime::clock::Clock;

/// Interval at which ages are drawn anew.
const EVERY: Duration = Duration::from_secs(1);

/// Largest number of keys that are taken between two pictures.
const KEYS_AT_ONCE: usize = 256;

/// Size of a picture where there is no terminal.
const USUAL: PictureSize = PictureSize { columns: 80, rows: 24 };

/// Shows the fleet until it is ended, or once.
///
/// # Errors
/// Fails if neither a node of this machine nor a seed answers, or there is no terminal.
pub fn run(args: &TopArgs) -> Result<(), CliError> {
    if !args.once && !terminal::is_capable() {
        let text = "there is no terminal to draw on; peer top --once prints one picture";
        return Err(CliError::Usage(text.to_owned()));
    }
    let mut observer = Observer::new(args);
    let first = observer.look();
    if let (Err(node), None | Some(Err(_))) = (&first.node, &first.fleet) {
        let seeds = match &first.fleet {
            Some(Err(reason)) => reason.clone(),
            Some(Ok(_)) | None => format!("{} does not exist", args.ask.config.display()),
        };
        return Err(CliError::Failed(format!(
            "there is nothing to show: {node}, and {seeds}; name a node with --port and --data, \
             or a seed with --at"
        )));
    }
    let mut screen = TopScreen::new(args.pane, !args.no_color && wants_color());
    let (mut model, now) = (TopModel::default(), first.at);
    model.take(first);
    if args.once {
        let terminal = size().ok().map(|(columns, rows)| PictureSize { columns, rows });
        let size = args.size.or(terminal).unwrap_or(USUAL);
        return print(&picture(&mut screen, &model, now, size));
    }
    show(screen, model, look::start(observer)?)
}

/// The screen as plain text.
fn picture(
    screen: &mut TopScreen,
    model: &TopModel,
    now: WallTime,
    PictureSize { columns, rows }: PictureSize,
) -> String {
    let Ok(mut terminal) = ratatui::Terminal::new(TestBackend::new(columns, rows));
    let Ok(drawn) = terminal.draw(|frame| draw(frame, screen, model, now));
    let lines = drawn.buffer.content.chunks(usize::from(columns)).map(|cells| {
        let mut text = String::new();
        let mut covered = 0_usize;
        for cell in cells {
            if covered == 0 {
                text.push_str(cell.symbol());
                covered = cell.symbol().width();
            }
            covered = covered.saturating_sub(1);
        }
        text.trim_end().to_owned() + "\n"
    });
    lines.collect()
}

/// Shows the fleet on the terminal until it is ended.
fn show(mut screen: TopScreen, mut model: TopModel, (ask, news): Channels) -> Result<(), CliError> {
    let system = |action| move |source: io::Error| CliError::System { action, source };
    let failed = system("write to the screen");
    let signals = signals::listen(false).map_err(system("listen to signals"))?;
    // Before the terminal is taken: a stop in between would leave it in a mode nobody can use.
    let jobs = terminal::jobs().map_err(failed)?;
    let mut terminal = Terminal::take().map_err(failed)?;
    let keys = terminal::keys().map_err(failed)?;
    let (ticks, clock) = (tick(EVERY), Clock::start());
    loop {
        let now = clock.now().wall;
        terminal.draw(|frame| draw(frame, &mut screen, &model, now)).map_err(failed)?;
        select! {
            recv(news) -> told => match told {
                Ok(News::Sighting(sighting)) => model.take(*sighting),
                Ok(News::Explained(endpoint, answer)) => screen.answer(endpoint, answer),
                Err(_) => return Err(CliError::Failed("the fleet is not looked at".to_owned())),
            },
            recv(keys) -> key => {
                let Ok(key) = key else { return Ok(()) };
                for key in std::iter::once(key).chain(keys.try_iter().take(KEYS_AT_ONCE)) {
                    if act(&mut terminal, &mut screen, (&model, now), &key, &ask)? {
                        return Ok(());
                    }
                }
            }
            recv(jobs) -> job => match job {
                Ok(Job::Stop) => terminal.stop().map_err(failed)?,
                Ok(Job::Continued) => terminal.take_again().map_err(failed)?,
                Err(_) => return Ok(()),
            },
            recv(signals) -> _ => return Ok(()),
            recv(ticks) -> _ => {}
        }
    }
}

/// Carries out a key; returns whether it ends the view.
fn act(
    terminal: &mut Terminal,
    screen: &mut TopScreen,
    seen: (&TopModel, WallTime),
    key: &Event,
    ask: &crossbeam_channel::Sender<crate::model::Endpoint>,
) -> Result<bool, CliError> {
    let failed = |source| CliError::System { action: "write to the screen", source };
    match screen.tell(seen, key) {
        TopAction::Nothing => {}
        TopAction::Redraw => terminal.forget().map_err(failed)?,
        TopAction::Stop => terminal.stop().map_err(failed)?,
        TopAction::Quit => return Ok(true),
        TopAction::Explain(endpoint) => {
            if ask.try_send(endpoint).is_err() {
                let text = "other questions are still being answered; try again";
                screen.answer(endpoint, Err(text.to_owned()));
            }
        }
    }
    Ok(false)
}
