//! Log lines: one event, one line, one write to the console and one to the output file.
//!
//! Invariants:
//! - A line is written whole: many processes may share the console and the output file, and no
//!   line is ever torn or mixed with another.
//! - Texts from outside are escaped, so that they cannot end a line or steer a terminal.
//!
//! Text is `2026-02-25T09:00:00.123Z INFO  peer 127.0.0.1:6001 <message>`; JSON has the same and
//! the event's fields. People at a terminal get `09:00:00.123 INFO  peer:6001 <message>` with a
//! colored level; the output file and pipes never do. [`super::report`] makes the lines of events.

use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal as _, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use ::log::kv::Key;
use ::log::{Level, Record};
use clap::ValueEnum;
use serde_json::{Map, Value};

use super::error::CliError;
use super::output::wants_color;
use super::text::{escape, escape_json};
use crate::model::{Endpoint, WallTime};
use crate::runtime::clock::Clock;
use crate::runtime::files::warn_of_group;

/// Event name of lines that are no event of a node: warnings of the runtime.
const PLAIN_EVENT: &str = "log";

/// One event as a log line. The message is for people, the fields say the same for programs.
#[derive(Clone, Debug, PartialEq)]
pub struct LogLine {
    /// Level of the line.
    pub level: Level,
    /// Name of the event.
    pub event: &'static str,
    /// One sentence, or one of the fixed texts.
    pub message: String,
    /// Details of the event.
    pub fields: Map<String, Value>,
}

impl LogLine {
    /// A line whose fields are the JSON object `fields`.
    pub fn new(
        level: Level,
        event: &'static str,
        message: impl Into<String>,
        fields: Value,
    ) -> Self {
        let fields = if let Value::Object(fields) = fields { fields } else { Map::new() };
        Self { level, event, message: message.into(), fields }
    }

    /// Writes this line to the process's log, with the time `at`, and tells it the listener.
    pub fn log(&self, at: WallTime) {
        if let Some(listener) = LISTENER.get() {
            listener(self, at);
        }
        let Self { level, event, message, fields } = self;
        if *level > ::log::max_level() {
            return;
        }
        let fields = serde_json::to_string(fields).unwrap_or_default();
        ::log::log!(target: "folkmoot", *level, at = at.0, event = *event, fields = fields.as_str();
            "{message}");
    }
}

/// Function that is told each line of this process, also those below the level of the log. A
/// process logs for one node, and has one listener.
type Listener = Box<dyn Fn(&LogLine, WallTime) + Send + Sync>;

static LISTENER: OnceLock<Listener> = OnceLock::new();

/// Sets the function that is told each line from now on; only the first call has an effect.
pub(in crate::cli) fn listen(listener: Listener) {
    let _ = LISTENER.set(listener);
}

/// Format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people: time, level, node, message
    #[default]
    Text,
    /// For programs: one JSON object a line
    Json,
}

/// Level of the least important lines to show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// No lines at all
    Off,
    /// Failures that an operator must act on
    Error,
    /// Misbehavior of others, and what went wrong
    Warn,
    /// Memberships, neighbors, gossip, suspicions
    #[default]
    Info,
    /// Details of the protocol, too
    Debug,
    /// Every line there is
    Trace,
}

impl From<LogLevel> for ::log::LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Off => Self::Off,
            LogLevel::Error => Self::Error,
            LogLevel::Warn => Self::Warn,
            LogLevel::Info => Self::Info,
            LogLevel::Debug => Self::Debug,
            LogLevel::Trace => Self::Trace,
        }
    }
}

/// Settings of a node's log.
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// File that gets every line too.
    pub output: PathBuf,
    /// Format of the lines.
    pub format: LogFormat,
    /// Level of the least important lines shown.
    pub level: LogLevel,
}

/// Node that writes the lines.
#[derive(Clone, Copy, Debug)]
pub struct LogOrigin {
    /// `seed` or `peer`.
    pub role: &'static str,
    /// Listen address of the node.
    pub node: Endpoint,
}

/// Makes the `log` crate write lines of `origin` to the console and the output file from now on.
///
/// # Errors
/// Fails if the output file cannot be appended to, or this process logs already.
pub fn install(settings: &LogSettings, origin: LogOrigin) -> Result<(), CliError> {
    let output = open_output(&settings.output)
        .map_err(|source| CliError::Output { path: settings.output.clone(), source })?;
    let console = io::stdout().as_fd().try_clone_to_owned().ok().map(File::from);
    let console_lines = ConsoleLines::of(io::stdout().is_terminal(), settings.format);
    let is_twofold = console_lines != ConsoleLines::Same;
    let path = settings.output.clone();
    let mut tee = Tee { console, output, path, is_twofold, is_torn: false };
    let clock = Clock::start();
    let format = settings.format;
    if is_twofold && settings.level != LogLevel::Off {
        let LogOrigin { role, node } = origin;
        tee.tell(format!("{role} {node}; times are UTC\n").as_bytes());
    }
    let mut builder = env_logger::Builder::new();
    builder.filter_level(settings.level.into());
    if let Ok(filters) = std::env::var("RUST_LOG") {
        builder.parse_filters(&filters);
    }
    builder
        .format(move |out, record| {
            // The console's line comes first; the tee takes them apart.
            if let ConsoleLines::Short { has_color } = console_lines {
                out.write_all(console_line(record, origin, &clock, has_color).as_bytes())?;
            }
            out.write_all(line_of(record, format, origin, &clock).as_bytes())
        })
        .target(env_logger::Target::Pipe(Box::new(tee)))
        .try_init()
        .map_err(|_| CliError::Failed("this process logs for another node already".to_owned()))?;
    warn_of_group();
    Ok(())
}

/// Makes the `log` crate write lines of `origin` to standard error, for programs whose standard
/// output has its own format.
///
/// # Errors
/// Fails if this process logs already.
pub(in crate::cli) fn install_on_stderr(
    format: LogFormat,
    level: ::log::LevelFilter,
    origin: LogOrigin,
) -> Result<(), CliError> {
    let clock = Clock::start();
    let console_lines = ConsoleLines::of(io::stderr().is_terminal(), format);
    env_logger::Builder::new()
        .filter_level(level)
        .format(move |out, record| {
            let line = match console_lines {
                ConsoleLines::Same => line_of(record, format, origin, &clock),
                ConsoleLines::Short { has_color } => {
                    console_line(record, origin, &clock, has_color)
                }
            };
            out.write_all(line.as_bytes())
        })
        .target(env_logger::Target::Stderr)
        .try_init()
        .map_err(|_| CliError::Failed("this process logs for another node already".to_owned()))
}

fn open_output(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

/// Form of the lines on the console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ConsoleLines {
    /// The lines of the output file.
    Same,
    /// Short lines for people at a terminal.
    Short { has_color: bool },
}

impl ConsoleLines {
    fn of(is_terminal: bool, format: LogFormat) -> Self {
        match (is_terminal, format) {
            (true, LogFormat::Text) => Self::Short { has_color: wants_color() },
            (true, LogFormat::Json) | (false, _) => Self::Same,
        }
    }
}

/// Writes each line once to the console and once to the output file, and goes on without either.
/// An output file that was renamed or removed, as log rotation does, is made anew.
struct Tee {
    console: Option<File>,
    output: File,
    path: PathBuf,
    /// True if each line comes in two forms, the console's first.
    is_twofold: bool,
    /// True if the last line did not get into the output file, or not whole.
    is_torn: bool,
}

impl Tee {
    /// Writes a line to the console.
    fn tell(&mut self, line: &[u8]) {
        if self.console.as_mut().is_some_and(|console| console.write_all(line).is_err()) {
            self.console = None; // Its reader has gone, and will not come back.
        }
    }

    /// Appends a line. After a failure, for want of space perhaps, the next line is tried again,
    /// on a line of its own; standard error tells of the first failure in a row.
    fn append(&mut self, line: &[u8]) {
        self.follow_name();
        let appended = if self.is_torn {
            self.output.write_all(&[b"\n", line].concat())
        } else {
            self.output.write_all(line)
        };
        match appended {
            Ok(()) => self.is_torn = false,
            Err(_) if self.is_torn => {}
            Err(error) => {
                self.is_torn = true;
                let path = self.path.display();
                let _ = writeln!(io::stderr().lock(), "error: cannot append to {path}: {error}");
            }
        }
    }

    /// Opens the output file again if its name stands for another file now, or for none.
    fn follow_name(&mut self) {
        let which = |it: std::fs::Metadata| (it.dev(), it.ino());
        let named = std::fs::metadata(&self.path).map(which).ok();
        if named == self.output.metadata().map(which).ok() {
            return;
        }
        // If it cannot be opened, the lines go to the old file: none is lost.
        if let Ok(output) = open_output(&self.path) {
            (self.output, self.is_torn) = (output, false);
        }
    }
}

impl Write for Tee {
    /// Called once a line, with the whole line. A file or a pipe with room takes it in one write;
    /// only where there is no room the rest follows.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let end = line.iter().position(|byte| *byte == b'\n').map_or(line.len(), |at| at + 1);
        let (console, file) = if self.is_twofold { line.split_at(end) } else { (line, line) };
        self.tell(console);
        self.append(file);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Time of the event that a record is about.
fn time_of(record: &Record<'_>, clock: &Clock) -> WallTime {
    let at = record.key_values().get(Key::from("at")).and_then(|at| at.to_u64()).map(WallTime);
    at.unwrap_or_else(|| clock.now().wall)
}

/// A line for people at a terminal, on which several nodes may write: time of day, level, role and
/// port, message.
fn console_line(
    record: &Record<'_>,
    LogOrigin { role, node }: LogOrigin,
    clock: &Clock,
    has_color: bool,
) -> String {
    let at = time_of(record, clock).to_string();
    let time = at.split_once('T').map_or(at.as_str(), |(_, time)| time.trim_end_matches('Z'));
    let (level, port) = (record.level(), node.port());
    let message = escape(&record.args().to_string());
    let color = match level {
        Level::Error => "1;31",
        Level::Warn => "33",
        Level::Info => "32",
        Level::Debug => "34",
        Level::Trace => "2",
    };
    if has_color {
        format!("\x1b[2m{time}\x1b[0m \x1b[{color}m{level:<5}\x1b[0m {role}:{port} {message}\n")
    } else {
        format!("{time} {level:<5} {role}:{port} {message}\n")
    }
}

fn line_of(record: &Record<'_>, format: LogFormat, origin: LogOrigin, clock: &Clock) -> String {
    let values = record.key_values();
    let at = time_of(record, clock);
    let message = record.args().to_string();
    let LogOrigin { role, node } = origin;
    match format {
        LogFormat::Text => text_line(at, record.level(), (role, &node), &message),
        LogFormat::Json => {
            let event = values.get(Key::from("event")).map(|event| event.to_string());
            let fields = values.get(Key::from("fields")).map(|fields| fields.to_string());
            let event = event.as_deref().unwrap_or(PLAIN_EVENT);
            let fields = fields.as_deref().unwrap_or_default();
            json_line(at, record.level(), (role, &node), (event, &message, fields))
        }
    }
}

/// A line as it is written, newline included, of a process that is identified by `role` and `name`;
/// for programs that keep no log of a node.
pub(in crate::cli) fn render(
    line: &LogLine,
    at: WallTime,
    (role, name): (&str, &str),
    format: LogFormat,
) -> String {
    let LogLine { level, event, message, fields } = line;
    match format {
        LogFormat::Text => text_line(at, *level, (role, &name), message),
        LogFormat::Json => {
            let fields = serde_json::to_string(fields).unwrap_or_default();
            json_line(at, *level, (role, &name), (event, message, &fields))
        }
    }
}

fn text_line(
    at: WallTime,
    level: Level,
    (role, node): (&str, &dyn Display),
    message: &str,
) -> String {
    format!("{at} {level:<5} {role} {node} {}\n", escape(message))
}

/// A line of JSON. The head's names are this file's, the rest is the JSON object `fields`, as its
/// event wrote it.
fn json_line(
    at: WallTime,
    level: Level,
    (role, node): (&str, &dyn Display),
    (event, message, fields): (&str, &str, &str),
) -> String {
    let ts_ms = at.0;
    let level = level.as_str().to_ascii_lowercase();
    let (event, message) = (Value::from(event), Value::from(message));
    let rest = fields.strip_prefix('{').unwrap_or("}");
    let comma = if rest == "}" { "" } else { "," };
    let line = format!(
        "{{\"ts\":\"{at}\",\"ts_ms\":{ts_ms},\"level\":\"{level}\",\"role\":\"{role}\",\
         \"node\":\"{node}\",\"event\":{event},\"message\":{message}{comma}{rest}"
    );
    escape_json(&line) + "\n"
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const AT: WallTime = WallTime(1_772_010_000_123);

    fn origin() -> LogOrigin {
        LogOrigin { role: "peer", node: Endpoint::new([127, 0, 0, 1].into(), 6001) }
    }

    fn record_to_line(format: LogFormat, message: &str, fields: Option<&str>) -> String {
        with_record(message, fields, |it| line_of(it, format, origin(), &Clock::start()))
    }

    fn record_to_console(message: &str, has_color: bool) -> String {
        with_record(message, None, |it| console_line(it, origin(), &Clock::start(), has_color))
    }

    fn with_record(
        message: &str,
        fields: Option<&str>,
        line: impl FnOnce(&Record<'_>) -> String,
    ) -> String {
        let args = format_args!("{message}").to_string();
        let pairs = [("at", AT.0.to_string()), ("event", "heard".to_owned())];
        let mut values: Vec<(&str, ::log::kv::Value<'_>)> = vec![("at", AT.0.into())];
        if let Some(fields) = fields {
            values.push(("event", pairs[1].1.as_str().into()));
            values.push(("fields", fields.into()));
        }
        let source: &[(&str, ::log::kv::Value<'_>)] = &values;
        line(
            &Record::builder()
                .level(Level::Info)
                .key_values(&source)
                .args(format_args!("{args}"))
                .build(),
        )
    }

    #[test]
    fn a_text_line_is_time_level_node_message() {
        assert_eq!(
            record_to_line(LogFormat::Text, "1734567890.123:127.0.0.1:5", None),
            "2026-02-25T09:00:00.123Z INFO  peer 127.0.0.1:6001 1734567890.123:127.0.0.1:5\n"
        );
    }

    #[test]
    fn a_line_on_a_terminal_is_short_colored_and_steered_by_nobody() {
        let plain = record_to_console("hello\n\x1b[2J", false);
        assert_eq!(plain, "09:00:00.123 INFO  peer:6001 hello\\n\\u{1b}[2J\n");
        let colored = record_to_console("hello", true);
        assert_eq!(colored, "\x1b[2m09:00:00.123\x1b[0m \x1b[32mINFO \x1b[0m peer:6001 hello\n");
        for (is_terminal, format) in [(false, LogFormat::Text), (true, LogFormat::Json)] {
            assert_eq!(ConsoleLines::of(is_terminal, format), ConsoleLines::Same);
        }
        assert_ne!(ConsoleLines::of(true, LogFormat::Text), ConsoleLines::Same);
    }

    #[test]
    fn of_two_forms_of_a_line_the_file_gets_the_second() {
        let dir = tempfile::tempdir().unwrap();
        let (path, console) = (dir.path().join("outputfile.txt"), dir.path().join("console"));
        let mut tee = tee(&path, open_output(&path).unwrap());
        (tee.is_twofold, tee.console) = (true, Some(open_output(&console).unwrap()));
        tee.write_all(b"short\nwhole\n").unwrap();
        tee.write_all(b"short 2\nwhole 2\n").unwrap();
        assert_eq!(std::fs::read_to_string(&console).unwrap(), "short\nshort 2\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "whole\nwhole 2\n");
    }

    #[test]
    fn a_json_line_has_the_same_and_the_fields() {
        let line = record_to_line(LogFormat::Json, "hello", Some(r#"{"hops":2}"#));
        let value: Value = serde_json::from_str(&line).unwrap();
        let expected = json!({
            "ts": "2026-02-25T09:00:00.123Z", "ts_ms": 1_772_010_000_123_u64, "level": "info",
            "role": "peer", "node": "127.0.0.1:6001", "event": "heard", "message": "hello",
            "hops": 2,
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn a_line_of_the_runtime_needs_no_fields() {
        let line = record_to_line(LogFormat::Json, "cannot accept", None);
        assert!(line.contains(r#""event":"log""#), "{line}");
    }

    #[test]
    fn foreign_characters_cannot_end_a_line_or_steer_a_terminal() {
        let foreign = "a\nb\r\x1b[2J\u{7f}\u{85}\u{2028}\u{202e}é";
        let text = record_to_line(LogFormat::Text, foreign, None);
        assert!(text.ends_with("a\\nb\\r\\u{1b}[2J\\u{7f}\\u{85}\\u{2028}\\u{202e}é\n"), "{text}");
        let json = record_to_line(LogFormat::Json, foreign, None);
        assert_eq!(json.matches(char::is_control).count(), 1, "{json:?}");
        let value: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["message"], foreign);
    }

    fn tee(path: &Path, output: File) -> Tee {
        Tee { console: None, output, path: path.into(), is_twofold: false, is_torn: false }
    }

    #[test]
    fn several_handles_on_one_file_append_whole_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("outputfile.txt");
        let mut tees: Vec<_> = (0..4).map(|_| tee(&path, open_output(&path).unwrap())).collect();
        for round in 0..50 {
            for (number, tee) in tees.iter_mut().enumerate() {
                tee.write_all(format!("{round} {number}\n").as_bytes()).unwrap();
            }
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 200);
        assert!(text.lines().all(|line| line.split(' ').count() == 2));
    }

    #[test]
    fn after_a_failure_the_next_line_stands_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("outputfile.txt");
        std::fs::write(&path, "cut he").unwrap();
        let mut tee = tee(&path, File::open(&path).unwrap());
        tee.write_all(b"lost, because the file is open for reading only\n").unwrap();
        assert!(tee.is_torn);
        tee.output = open_output(&path).unwrap();
        tee.write_all(b"whole\n").unwrap();
        tee.write_all(b"again\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "cut he\nwhole\nagain\n");
    }
}
