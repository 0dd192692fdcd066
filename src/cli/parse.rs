//! Flags of a run from the command line, the environment and a settings file.
//!
//! A flag has the first value that is found on the command line, in the variable
//! `FOLKMOOT_…` (`FOLKMOOT_PING_INTERVAL` for `--ping-interval`), or in the TOML file of
//! `--settings` (`ping-interval = "500ms"`). Commands, as in `peer status`, read neither.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::Path;

use clap::builder::ArgAction;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command, CommandFactory, Error, FromArgMatches};
use toml::Value;

/// Flag that names the settings file.
const SETTINGS: &str = "settings";

/// Flags of this program. Prints the error and exits, if there is one.
pub fn parse<A: CommandFactory + FromArgMatches>() -> A {
    read(std::env::args_os().collect(), |name| std::env::var_os(name))
        .unwrap_or_else(|it| it.exit())
}

fn read<A: CommandFactory + FromArgMatches>(
    mut args: Vec<OsString>,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<A, Error> {
    let mut command = A::command();
    // The second pass has the errors, when the flags that are required may have been found.
    let given = command.clone().ignore_errors(true).try_get_matches_from(&args);
    let run = given.ok().filter(|it| it.subcommand_name().is_none());
    let found = run.map(|given| find(&command, &given, variable)).transpose()?.unwrap_or_default();
    let behind_name = args.len().min(1);
    args.splice(behind_name..behind_name, found.flags.into_iter().map(OsString::from));
    let matches = command.try_get_matches_from_mut(args);
    matches.and_then(|it| A::from_arg_matches(&it)).map_err(|error| {
        if found.places.is_empty() || !error.use_stderr() {
            return error;
        }
        let (text, from) = (error.to_string(), found.places.join(", "));
        let text = text.strip_prefix("error: ").unwrap_or(&text);
        Error::raw(error.kind(), format!("{text}\nFlags were taken from {from}, too.\n"))
    })
}

/// Flags that are not on the command line, as it has them, and the places where they were found.
#[derive(Default)]
struct Found {
    flags: Vec<String>,
    places: Vec<String>,
}

fn find(
    command: &Command,
    given: &ArgMatches,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Found, Error> {
    let name_of = |long: &str| format!("FOLKMOOT_{}", long.replace('-', "_").to_uppercase());
    let on_line = given.get_raw(SETTINGS).and_then(|mut it| it.next()).map(ToOwned::to_owned);
    let path = on_line.or_else(|| variable(&name_of(SETTINGS)));
    let place = path.as_ref().map(|it| it.display().to_string()).unwrap_or_default();
    let mut file = match &path {
        Some(path) => table(Path::new(path)).map_err(|why| wrong(&place, &why))?,
        None => BTreeMap::new(),
    };
    let mut found = Found::default();
    for arg in command.get_arguments() {
        let Some(long) = arg.get_long() else { continue };
        let in_file = file.remove(long);
        let is_given = given.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine);
        if is_given || long == SETTINGS {
            continue;
        }
        let name = name_of(long);
        let in_variable = variable(&name).map(|it| (text(arg, &it), name));
        let Some((value, place)) = in_variable.or_else(|| Some((in_file?, place.clone()))) else {
            continue;
        };
        found.flags.extend(flag(arg, value).map_err(|why| wrong(&place, &why))?);
        found.places.push(place);
    }
    found.places.dedup();
    match file.keys().next() {
        Some(name) => {
            Err(wrong(&place, &format!("no flag is named --{name}; `--help` lists them")))
        }
        None => Ok(found),
    }
}

fn wrong(place: &str, why: &str) -> Error {
    Error::raw(ErrorKind::InvalidValue, format!("{place}: {why}\n"))
}

fn table(path: &Path) -> Result<BTreeMap<String, Value>, String> {
    let text = fs::read_to_string(path)
        .map_err(|it| format!("{it}; --settings takes a TOML file with flags of this run"))?;
    toml::from_str(&text).map_err(|it| it.to_string())
}

/// The value of a variable: a list is separated by commas, a switch is `true` or `false`.
fn text(arg: &Arg, value: &OsStr) -> Value {
    let value = value.to_string_lossy().into_owned();
    match (arg.get_action(), value.parse()) {
        (_, Ok(is_on)) if may_stand_alone(arg) => Value::Boolean(is_on),
        (ArgAction::Append, _) => {
            value.split(',').map(|it| Value::from(it.trim())).collect::<Vec<_>>().into()
        }
        _ => Value::String(value),
    }
}

/// True if the flag needs no value.
fn may_stand_alone(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::SetTrue)
        || arg.get_num_args().is_some_and(|it| it.min_values() == 0)
}

/// The words of a flag with this value, as a command line has them.
fn flag(arg: &Arg, value: Value) -> Result<Vec<String>, String> {
    let name = arg.get_long().unwrap_or_default();
    let one = |value: Value| match value {
        Value::String(it) => Ok(format!("--{name}={it}")),
        Value::Integer(_) | Value::Float(_) => Ok(format!("--{name}={value}")),
        Value::Boolean(_) | Value::Datetime(_) | Value::Array(_) | Value::Table(_) => {
            Err(format!("{name} takes a text or a number, not {value}"))
        }
    };
    match (arg.get_action(), value) {
        (_, Value::Boolean(true)) if may_stand_alone(arg) => Ok(vec![format!("--{name}")]),
        (_, Value::Boolean(false)) if may_stand_alone(arg) => Ok(vec![]),
        (ArgAction::SetTrue, value) => Err(format!("{name} is true or false, not {value}")),
        (ArgAction::Append, Value::Array(list)) => list.into_iter().map(one).collect(),
        (_, value) => Ok(vec![one(value)?]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::rollout::args::DecisionLogKind;
    use crate::cli::{PeerArgs, SeedArgs};

    fn peer(line: &str, variables: &[(&str, &str)]) -> Result<PeerArgs, Error> {
        let find = |name: &str| variables.iter().find(|it| it.0 == name).map(|it| it.1.into());
        read(line.split_whitespace().map(OsString::from).collect(), find)
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().expect("a file can be made");
        fs::write(file.path(), text).expect("a file can be written");
        file
    }

    #[test]
    fn the_command_line_goes_before_variables_and_these_before_the_file() {
        let file = file("port = 6001\nlinks = 4\nfleet = \"file\"\nping-interval = \"2s\"\n");
        let line = format!("peer --settings {} --fleet line", file.path().display());
        let args = peer(&line, &[("FOLKMOOT_LINKS", "5"), ("FOLKMOOT_FLEET", "variable")]);
        let args = args.expect("all is given").run;
        assert_eq!((args.port, args.limits.links), (Some(6001), 5));
        assert_eq!(args.node.fleet.as_deref(), Some("line"));
        assert_eq!(args.limits.ping_interval.to_string(), "2s");
    }

    #[test]
    fn lists_and_switches_come_from_files_and_variables() {
        let file = file("port = 0\nopen = true\njoin = [\"127.0.0.1:1\", \"127.0.0.1:2\"]\n");
        let path = file.path().to_str().expect("a plain path");
        let args = peer("peer", &[("FOLKMOOT_SETTINGS", path)]).expect("all is given").run;
        assert!(args.open && args.join.len() == 2);
        let variables =
            [("FOLKMOOT_SETTINGS", path), ("FOLKMOOT_OPEN", "false"), ("FOLKMOOT_JOIN", "[::1]:9")];
        let args = peer("peer --port 7", &variables).expect("all is given").run;
        assert_eq!((args.port, args.open, args.join.len()), (Some(7), false, 1));
    }

    #[test]
    fn a_flag_that_may_lack_its_value_is_true_or_has_one() {
        let file = file("port = 1\nrollout = \"a\"\ndecide-in-log = true\n");
        let line = format!("peer --settings {}", file.path().display());
        let kind =
            |variables| peer(&line, variables).expect("all is given").run.rollout.decide_in_log;
        assert_eq!(kind(&[]), Some(DecisionLogKind::Chat));
        assert_eq!(kind(&[("FOLKMOOT_DECIDE_IN_LOG", "bft")]), Some(DecisionLogKind::Bft));
        assert_eq!(kind(&[("FOLKMOOT_DECIDE_IN_LOG", "true")]), Some(DecisionLogKind::Chat));
        assert_eq!(kind(&[("FOLKMOOT_DECIDE_IN_LOG", "false")]), None);
    }

    #[test]
    fn errors_name_the_file_or_the_variable() {
        let error = |it: Result<PeerArgs, Error>| it.expect_err("it is wrong").to_string();
        let wrong = file("port = 6001\nlink = 3\n");
        let line = format!("peer --settings {}", wrong.path().display());
        let text = error(peer(&line, &[]));
        assert!(text.contains("no flag is named --link") && text.contains("tmp"), "{text}");
        let text = error(peer("peer --port 1 --settings no-such.toml", &[]));
        assert!(text.contains("no-such.toml: No such file") && text.contains("TOML"), "{text}");
        let text = error(peer("peer", &[("FOLKMOOT_PORT", "many")]));
        assert!(text.starts_with("error: invalid value 'many'"), "{text}");
        assert!(text.contains("taken from FOLKMOOT_PORT"), "{text}");
        assert!(text.contains("a number from 1 to 65535"), "{text}");
        let text = error(peer("peer --port 1", &[("FOLKMOOT_OPEN", "perhaps")]));
        assert!(text.contains("FOLKMOOT_OPEN: open is true or false"), "{text}");
        assert!(error(peer("peer", &[])).contains("--port"));
    }

    #[test]
    fn commands_take_nothing_from_variables() {
        let args =
            peer("peer status --port 6001", &[("FOLKMOOT_PORT", "7"), ("FOLKMOOT_OPEN", "x")]);
        assert!(args.expect("a command").command.is_some());
        let args: SeedArgs =
            read(vec!["seed".into()], |it| (it == "FOLKMOOT_ID").then(|| "2".into()))
                .expect("all is given");
        assert_eq!(args.run.id, Some(2));
    }
}
