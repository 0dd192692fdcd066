//! The house rules that a program can check.
//!
//! Each test reads the sources and documents of this package as text, collects every violation,
//! and names file, line, rule and reason. It is a fence, not a proof: the compiler and clippy
//! stand behind it.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// What each module may use of the others.
const MAY_USE: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("proto", &["model"]),
    ("machine", &["model", "proto"]),
    ("node", &["model", "proto", "machine"]),
    ("runtime", &["model", "proto", "machine"]),
    ("sim", &["model", "proto", "machine"]),
    ("network", &["model", "proto", "machine", "node", "runtime"]),
    ("cli", &["model", "proto", "machine", "node", "runtime", "sim", "network"]),
];

/// What the pure modules may not name, and why.
const IMPURE: &[(&str, &str)] = &[
    ("TcpStream", "a machine touches no sockets: return an effect"),
    ("TcpListener", "a machine touches no sockets: return an effect"),
    ("UdpSocket", "a machine touches no sockets: return an effect"),
    ("std::fs", "a machine touches no files: persist a record"),
    ("std::thread", "a machine has no threads: a driver calls it"),
    ("std::process", "a machine starts and ends no process"),
    ("std::env", "a machine is configured by its caller"),
    ("Instant", "time enters through `Now`"),
    ("SystemTime", "time enters through `Now`"),
    ("Timestamp::now", "time enters through `Now`"),
    ("println!", "a machine reports by events"),
    ("print!", "a machine reports by events"),
    ("log::info", "a machine reports by events; at most debug is logged below the drivers"),
    ("log::warn", "a machine reports by events; at most debug is logged below the drivers"),
    ("log::error", "a machine reports by events; at most debug is logged below the drivers"),
    ("HashMap", "its order is random per process, so runs would not replay: BTreeMap"),
    ("HashSet", "its order is random per process, so runs would not replay: BTreeSet"),
    ("thread_rng", "randomness enters through `model::Rng`, so that runs replay"),
    ("rand::rng(", "randomness enters through `model::Rng`, so that runs replay"),
    ("rand::random", "randomness enters through `model::Rng`, so that runs replay"),
    ("make_rng", "randomness enters through `model::Rng`, so that runs replay"),
    ("from_os_rng", "randomness enters through `model::Rng`, so that runs replay"),
    ("SysRng", "randomness enters through `model::Rng`, so that runs replay"),
];

/// What only some files may name, those files or folders, and why.
const RESERVED: &[(&str, &[&str], &str)] = &[
    // Timers of tokio are set by its own clock.
    (
        "Instant::now",
        &["src/runtime/clock.rs", "src/runtime/web/", "src/runtime/dataplane/"],
        "one file reads the clock",
    ),
    ("SystemTime::now", &["src/runtime/clock.rs"], "one file reads the clock"),
    ("Timestamp::now", &["src/runtime/clock.rs"], "one file reads the clock"),
    ("Zoned::now", &["src/runtime/clock.rs"], "one file reads the clock"),
    ("process::exit", &["src/bin/"], "only the binaries choose exit codes"),
    ("process::abort", &["src/bin/"], "only the binaries choose how to end"),
    ("std::thread::spawn", &["src/runtime/thread.rs"], "threads have names and sized stacks"),
    ("thread::sleep", &[], "wait on a condition or a deadline, never blindly"),
    (
        ".accept()",
        &[
            "src/runtime/engine/acceptor.rs",
            "src/runtime/web/server.rs",
            "src/runtime/control.rs",
            "src/cli/bench/",
        ],
        "one loop accepts connections, and knows which failures end it",
    ),
    (".try_lock(", &["src/runtime/lock.rs"], "one file takes locks, and knows what a child does"),
    ("FlockOperation", &["src/runtime/lock.rs"], "one file takes locks"),
    ("unbounded", &["src/runtime/channel.rs"], "every queue has a bound"),
    ("mpsc::channel", &[], "every queue has a bound"),
    ("HashMap", &[], "its order is random per process: BTreeMap"),
    ("HashSet", &[], "its order is random per process: BTreeSet"),
];

/// Production lines of a file at most; above, it is two files.
const LINES_MAX: usize = 500;

/// Files that were longer when this rule came, each with the size it may not exceed again. Lower
/// a number when a file shrinks, and delete the line when it fits; never raise one.
const LONG_FILES: &[(&str, usize)] = &[];

/// The longest line of source, in characters.
const COLUMNS_MAX: usize = 100;

/// Words with which no doc comment begins.
const QUESTIONS: &[&str] =
    &["What", "Who", "Whom", "Whose", "How", "Where", "Which", "When", "Whether", "Why"];

/// Names of which each state machine, part of one, or dialect has one of its own; beside another
/// they are told apart by the name of their module.
const FAMILIES: &[(&str, &str)] = &[
    ("Command", "a machine's `Vocabulary::Command`"),
    ("Config", "the configuration of a machine or a part of one"),
    ("Effect", "the contract's `Effect` for one machine"),
    ("Event", "a machine's `Vocabulary::Event`"),
    ("ExtraEffect", "a machine's `Vocabulary::ExtraEffect`"),
    ("ExtraInput", "a machine's `Machine::ExtraInput`"),
    ("Fx", "the effects of one input of a machine or a part of one"),
    ("Input", "the contract's `Input` for one machine"),
    ("KillPoint", "the points of death, of which programs without `fault-injection` have none"),
    ("Message", "a dialect's message, and the message of a topic"),
    ("Opening", "a machine's `Machine::Opening`"),
    ("Record", "a machine's `Vocabulary::Record`"),
    ("Timer", "a machine's `Vocabulary::Timer`"),
];

/// Names that public types of several modules shared when this rule came, beside the families.
/// Lower the number when some get names of their own; never raise it.
const SHARED_NAMES: usize = 0;

/// Files and folders on which a reader of the repository may rely.
const REQUIRED: &[&str] = &[
    "Cargo.toml",
    "src",
    "tests",
    "config.txt",
    "outputfile.txt",
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "docs/PROTOCOL.md",
    "docs/LOG.md",
    "docs/SECURITY.md",
    ".ci/run",
];

/// The crates that this project is required to be built with.
const REQUIRED_CRATES: &[&str] =
    &["serde", "serde_json", "clap", "rand", "log", "env_logger", "crossbeam-channel"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All files below `folder`, by their paths from the root, sorted.
fn files(folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![root().join(folder)];
    while let Some(next) = open.pop() {
        let Ok(entries) = fs::read_dir(&next) else { continue };
        for entry in entries {
            let path = entry.expect("a folder can be listed").path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name == ".git" {
                // A folder, or in a further work tree a file that says where that is.
            } else if !path.is_dir() {
                let inside = path.strip_prefix(root()).expect("below the root");
                found.push(inside.to_str().expect("a plain name").to_owned());
            } else if !["target", "data", "found", "artifacts"].contains(&name) {
                open.push(path);
            }
        }
    }
    found.sort();
    found
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_default()
}

/// The source files below `folder`, with their text.
fn sources(folder: &str) -> Vec<(String, String)> {
    let is_source = |path: &String| path.ends_with(".rs");
    let found: Vec<_> =
        files(folder).into_iter().filter(is_source).map(|path| (text(&path), path)).collect();
    assert!(!found.is_empty(), "no sources in {folder}");
    found.into_iter().map(|(text, path)| (path, text)).collect()
}

fn is_test_file(path: &str) -> bool {
    path.starts_with("tests/") || path.ends_with("/tests.rs") || path.contains("/tests/")
}

/// The count of a file's lines that are not its tests.
fn production_lines(path: &str, text: &str) -> usize {
    if is_test_file(path) {
        return 0;
    }
    let lines: Vec<_> = text.lines().collect();
    let is_test_block = |pair: &[&str]| {
        let item = pair[1].trim_start_matches("pub(super) ");
        pair[0] == "#[cfg(test)]" && item.starts_with("mod ") && item.ends_with('{')
    };
    lines.windows(2).position(is_test_block).unwrap_or(lines.len())
}

/// The lines of production code with their numbers, without comments.
fn production<'a>(path: &str, text: &'a str) -> Vec<(usize, &'a str)> {
    let lines = text.lines().take(production_lines(path, text)).enumerate();
    lines.map(|(at, line)| (at + 1, line.split("//").next().unwrap_or_default())).collect()
}

/// Whether `line` names `word`, not as a part of a longer name.
fn names(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let starts = word.chars().next().is_some_and(is_part);
    let ends = word.chars().next_back().is_some_and(is_part);
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !(starts && before.is_some_and(is_part) || ends && after.is_some_and(is_part))
    })
}

/// Violations of one rule, told all at once.
#[derive(Default)]
struct Violations(String);

impl Violations {
    fn add(&mut self, path: &str, line: usize, what: impl std::fmt::Display) {
        writeln!(self.0, "{path}:{line}: {what}").expect("a text can be extended");
    }

    #[track_caller]
    fn check(self) {
        assert!(self.0.is_empty(), "house rules are broken:\n{}", self.0);
    }
}

/// The top-level modules that a line names, by `crate::` or by enough `super::`.
fn modules_named(path: &str, line: &str) -> Vec<String> {
    let inside = path.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
    let depth = inside.split('/').count();
    let from_here = "super::".repeat(depth);
    let mut named = Vec::new();
    for prefix in ["crate::", from_here.as_str()] {
        for (at, _) in line.match_indices(prefix) {
            let rest = &line[at + prefix.len()..];
            let is_end = |c: char| !(c.is_alphanumeric() || c == '_');
            named.push(rest.split(is_end).next().unwrap_or_default().to_owned());
        }
    }
    named
}

#[test]
fn modules_depend_downwards_only() {
    let mut wrong = Violations::default();
    for (module, allowed) in MAY_USE {
        for (path, text) in sources(&format!("src/{module}")) {
            for (number, line) in production(&path, &text) {
                if line.contains("crate::{") {
                    wrong.add(
                        &path,
                        number,
                        "one `use crate::` a module, so that this test sees it",
                    );
                }
                for other in modules_named(&path, line) {
                    let is_module = MAY_USE.iter().any(|(name, _)| *name == other);
                    if is_module && other != *module && !allowed.contains(&other.as_str()) {
                        let may = allowed.join(", ");
                        let what = format!("`{module}` must not use `{other}`, only [{may}]");
                        wrong.add(&path, number, what);
                    }
                }
            }
        }
    }
    wrong.check();
}

#[test]
fn binaries_use_the_command_line_only() {
    let mut wrong = Violations::default();
    for (path, text) in sources("src/bin") {
        for (number, line) in production(&path, &text) {
            for (at, _) in line.match_indices("folkmoot::") {
                if !line[at..].starts_with("folkmoot::cli") {
                    wrong.add(&path, number, "a binary parses and starts; all else is `cli`'s");
                }
            }
        }
        if production_lines(&path, &text) > 60 {
            wrong.add(&path, 61, "a binary has at most 60 lines: parse, start, exit code");
        }
    }
    wrong.check();
}

#[test]
fn drivers_know_the_machine_and_no_service() {
    let mut wrong = Violations::default();
    for folder in ["src/runtime", "src/sim", "src/proto"] {
        for (path, text) in sources(folder) {
            for (number, line) in production(&path, &text) {
                for service in ["gossip", "liveness", "overlay", "membership", "session", "probe"] {
                    if names(line, &format!("machine::{service}")) {
                        wrong.add(&path, number, format!("`{service}` is the nodes' business"));
                    }
                }
            }
        }
    }
    wrong.check();
}

/// Each of these words is defined once, and all machines and drivers speak with them.
#[test]
fn there_is_one_contract_for_all_machines() {
    let mut wrong = Violations::default();
    for word in ["trait Machine", "enum Input", "enum Effect"] {
        let mut count = 0;
        for (path, text) in sources("src/machine") {
            for (number, line) in production(&path, &text) {
                if names(line, word) {
                    count += 1;
                    if path != "src/machine/mod.rs" {
                        wrong.add(&path, number, format!("`{word}`: there is one, in `mod.rs`"));
                    }
                }
            }
        }
        if count != 1 {
            wrong.add("src/machine", 0, format!("`{word}` is defined {count} times"));
        }
    }
    wrong.check();
}

#[test]
fn seeds_hold_no_gossip() {
    let mut wrong = Violations::default();
    let folder = sources("src/machine/membership/authority");
    for (path, text) in
        [vec![("src/node/seed/mod.rs".to_owned(), text("src/node/seed/mod.rs"))], folder].concat()
    {
        for (number, line) in production(&path, &text) {
            if names(line, "gossip") || names(line, "Gossip") {
                wrong.add(&path, number, "seeds take no part in gossip (M11)");
            }
        }
    }
    wrong.check();
}

#[test]
fn machines_are_pure() {
    let mut wrong = Violations::default();
    for folder in ["src/model", "src/proto", "src/machine", "src/node"] {
        for (path, text) in sources(folder) {
            for (number, line) in production(&path, &text) {
                for (word, why) in IMPURE {
                    if names(line, word) {
                        wrong.add(&path, number, format!("`{word}`: {why}"));
                    }
                }
            }
        }
    }
    wrong.check();
}

#[test]
fn some_names_belong_to_some_files() {
    let mut wrong = Violations::default();
    for (path, text) in sources("src") {
        for (number, line) in production(&path, &text) {
            for (word, owners, why) in RESERVED {
                if names(line, word) && !owners.iter().any(|owner| path.starts_with(owner)) {
                    wrong.add(&path, number, format!("`{word}`: {why}"));
                }
            }
        }
    }
    wrong.check();
}

#[test]
fn every_file_says_what_it_is_for() {
    let mut wrong = Violations::default();
    for (path, text) in [sources("src"), sources("tests")].concat() {
        if !text.starts_with("//! ") {
            wrong.add(&path, 1, "begins with `//!`: what it is for, its invariants, its limits");
        }
    }
    wrong.check();
}

#[test]
fn lines_and_files_have_a_readable_size() {
    let mut wrong = Violations::default();
    for (path, text) in [sources("src"), sources("tests")].concat() {
        for (number, line) in text.lines().enumerate() {
            if line.chars().count() > COLUMNS_MAX {
                wrong.add(&path, number + 1, format!("more than {COLUMNS_MAX} columns"));
            }
        }
        let lines = production_lines(&path, &text);
        let known = LONG_FILES.iter().find(|(long, _)| *long == path).map(|(_, ceiling)| *ceiling);
        match known {
            None if lines > LINES_MAX => {
                let what =
                    format!("{lines} production lines; at most {LINES_MAX}: split it by role");
                wrong.add(&path, lines, what);
            }
            Some(ceiling) if lines > ceiling => {
                let what =
                    format!("{lines} production lines; it had {ceiling} and may only shrink");
                wrong.add(&path, lines, what);
            }
            Some(_) if lines <= LINES_MAX => {
                wrong.add(&path, lines, "fits now: delete it from LONG_FILES");
            }
            None | Some(_) => {}
        }
    }
    for (path, _) in LONG_FILES {
        if !root().join(path).exists() {
            wrong.add(path, 1, "is gone: delete it from LONG_FILES");
        }
    }
    wrong.check();
}

/// A doc comment says what a thing is: it does not begin with a question.
#[test]
fn no_doc_comment_begins_with_a_question_word() {
    let mut wrong = Violations::default();
    for path in files("src").into_iter().filter(|path| path.ends_with(".rs")) {
        let text = text(&path);
        let docs: Vec<_> = text.lines().map(doc_of).collect();
        for (number, doc) in docs.iter().enumerate() {
            // The lines of a paragraph go on with what the first begins.
            let is_first =
                number == 0 || docs[number - 1].is_none_or(|before| before.trim().is_empty());
            let word = doc.and_then(|doc| doc.split_whitespace().next());
            if is_first && word.is_some_and(|word| QUESTIONS.contains(&word)) {
                wrong.add(&path, number + 1, "a doc comment begins with a question word");
            }
        }
    }
    wrong.check();
}

/// The files that define public types of one name, by the name.
fn public_types() -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (path, text) in sources("src").into_iter().filter(|(path, _)| !is_test_file(path)) {
        // A public item of a module stands at the left edge, also within a macro's rules.
        for (_, line) in production(&path, &text) {
            let line = line.trim_start_matches(' ');
            let item = ["struct ", "enum ", "trait ", "type ", "union "]
                .iter()
                .find_map(|kind| line.strip_prefix("pub ")?.strip_prefix(kind));
            let is_part = |c: char| c.is_alphanumeric() || c == '_';
            let name = item.and_then(|it| it.split(|c| !is_part(c)).next());
            if let Some(name) = name.filter(|name| !name.is_empty()) {
                found.entry(name.to_owned()).or_default().push(path.clone());
            }
        }
    }
    found
}

/// One thing, one word: a name means the same wherever it is read.
#[test]
fn no_two_public_types_have_one_name() {
    let types = public_types();
    let is_family = |name: &str| FAMILIES.iter().any(|(family, _)| *family == name);
    let shared: Vec<_> =
        types.iter().filter(|(name, paths)| paths.len() > 1 && !is_family(name)).collect();
    let mut wrong = Violations::default();
    match shared.len().cmp(&SHARED_NAMES) {
        Ordering::Greater => {
            for (name, paths) in &shared {
                let what = format!("`{name}` is a public type also in {}", paths[1..].join(", "));
                wrong.add(&paths[0], 1, what);
            }
        }
        Ordering::Less => {
            let what = format!("only {} names are shared now: lower SHARED_NAMES", shared.len());
            wrong.add("tests/architecture.rs", 1, what);
        }
        Ordering::Equal => {}
    }
    for (family, _) in FAMILIES {
        if types.get(*family).is_none_or(|paths| paths.len() < 2) {
            wrong.add("tests/architecture.rs", 1, format!("`{family}` is no family any more"));
        }
    }
    wrong.check();
}

#[test]
fn every_doc_comment_says_more_than_two_words() {
    let mut wrong = Violations::default();
    for path in files("src").into_iter().filter(|path| path.ends_with(".rs")) {
        let text = text(&path);
        let docs: Vec<_> = text.lines().map(doc_of).chain([None]).collect();
        let mut words = None;
        for (number, doc) in docs.iter().enumerate() {
            match (doc, words) {
                (Some(doc), count) => {
                    words = Some(count.unwrap_or(0) + doc.split_whitespace().count());
                }
                (None, Some(0..=2)) => wrong.add(&path, number, "a doc comment of two words"),
                (None, _) => {}
            }
            words = words.filter(|_| doc.is_some());
        }
    }
    wrong.check();
}

/// The text of a line that is a doc comment.
fn doc_of(line: &str) -> Option<&str> {
    let line = line.trim_start();
    line.strip_prefix("///").or_else(|| line.strip_prefix("//!"))
}

#[test]
fn nothing_is_left_for_later() {
    // Put together here, so that this file does not accuse itself.
    let words = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
        concat!("db", "g!"),
        concat!("to", "do!"),
        concat!("unimple", "mented!"),
        concat!("#[ig", "nore"),
    ];
    let mut wrong = Violations::default();
    for (path, text) in [sources("src"), sources("tests")].concat() {
        for (number, line) in text.lines().enumerate() {
            for word in words.iter().filter(|word| names(line, word)) {
                wrong.add(&path, number + 1, format!("`{word}`: finish it, or note it elsewhere"));
            }
        }
    }
    wrong.check();
}

/// Whether `line` names a place of one machine's disk.
fn names_a_machine_path(line: &str) -> bool {
    let places = [
        concat!("/wo", "rk/"),
        concat!("/ro", "ot/"),
        concat!("/ho", "me/"),
        concat!("/fa", "rm/"),
    ];
    places.iter().any(|place| {
        line.match_indices(place).any(|(at, _)| {
            let before = line[..at].chars().next_back();
            let is_inner = before.is_some_and(|c| c.is_alphanumeric() || "./-_*".contains(c));
            !is_inner
        })
    })
}

#[test]
fn no_file_names_a_place_on_somebodys_machine() {
    let mut wrong = Violations::default();
    for path in files("") {
        for (number, line) in text(&path).lines().enumerate() {
            if names_a_machine_path(line) {
                wrong.add(
                    &path,
                    number + 1,
                    "an absolute path of one machine means nothing elsewhere",
                );
            }
        }
    }
    wrong.check();
}

#[test]
fn required_files_are_there() {
    let missing: Vec<_> = REQUIRED.iter().filter(|path| !root().join(path).exists()).collect();
    assert!(missing.is_empty(), "required files are missing: {missing:?}");
}

/// The names of one table of `Cargo.toml`.
fn dependencies(table: &str) -> Vec<String> {
    let manifest = text("Cargo.toml");
    let start = manifest.find(&format!("[{table}]\n")).expect("Cargo.toml has the table");
    let body = &manifest[start + table.len() + 3..];
    let entries = body.lines().take_while(|line| !line.starts_with('['));
    entries.filter_map(|line| Some(line.split_once(" = ")?.0.to_owned())).collect()
}

#[test]
fn dependencies_are_the_required_ones_and_none_is_idle() {
    let known = dependencies("dependencies");
    let missing: Vec<_> =
        REQUIRED_CRATES.iter().filter(|name| !known.iter().any(|it| it == *name)).collect();
    assert!(missing.is_empty(), "Cargo.toml lacks required crates: {missing:?}");
    let code: String = sources("src").into_iter().map(|(_, text)| text).collect();
    let is_used = |name: &str| {
        let name = name.replace('-', "_");
        ["::", "]", ";"].iter().any(|end| names(&code, &format!("{name}{end}")))
    };
    let idle: Vec<_> = known.iter().filter(|name| !is_used(name)).collect();
    assert!(idle.is_empty(), "Cargo.toml names crates that src does not use: {idle:?}");
}

// The protocol's document.

fn protocol() -> String {
    let text = text("docs/PROTOCOL.md");
    assert!(!text.is_empty(), "docs/PROTOCOL.md is missing");
    text
}

/// The parts of the document below each of its headings, by heading.
fn sections(text: &str) -> BTreeMap<&str, String> {
    let mut sections = BTreeMap::new();
    let mut heading = "";
    for line in text.lines() {
        if line.starts_with('#') {
            heading = line;
        }
        let section: &mut String = sections.entry(heading).or_default();
        section.push_str(line);
        section.push('\n');
    }
    sections
}

/// The names of all messages, from the table of which the compiler makes them.
fn messages() -> Vec<String> {
    let source = text("src/proto/message.rs");
    let (_, table) = source.split_once("\nmessages! {\n").expect("message.rs has the table");
    let rows = table.lines().take_while(|line| *line != "}").map(str::trim);
    let is_row = |line: &&str| !line.is_empty() && !line.starts_with("//");
    rows.filter(is_row)
        .map(|row| {
            let name = row.strip_prefix('"').and_then(|row| row.split_once("\": "));
            name.unwrap_or_else(|| panic!("no row of the table of messages: {row}")).0.to_owned()
        })
        .collect()
}

#[test]
fn the_document_explains_every_message_and_every_field() {
    let document = protocol();
    let sections = sections(&document);
    let mut missing = BTreeSet::new();
    let section = |name: &str| {
        let quoted = format!("`{name}`");
        let own = sections.iter().find(|(heading, _)| heading.contains(&quoted));
        own.map(|(_, section)| section)
    };
    let messages = messages();
    assert!(messages.len() > 20, "the table of messages was not found");
    for name in messages.iter().filter(|name| section(name).is_none()) {
        missing.insert(format!("{name}: no heading of its own"));
    }
    for line in text("tests/golden/native.jsonl").lines() {
        let line: Value = serde_json::from_str(line).expect("a golden line is JSON");
        let name = line["type"].as_str().expect("a golden line has a type");
        let Some(section) = section(name) else { continue };
        let fields = line.as_object().expect("a golden line is an object").keys();
        for field in fields.filter(|field| *field != "type") {
            if !section.contains(&format!("`{field}`")) {
                missing.insert(format!("{name}: nothing about `{field}`"));
            }
        }
        if let Some(code) = line["code"].as_str()
            && !document.contains(&format!("| `{code}` |"))
        {
            missing.insert(format!("{name}: nothing about the code `{code}`"));
        }
    }
    assert!(missing.is_empty(), "docs/PROTOCOL.md is incomplete: {missing:#?}");
}

/// The rules that a text cites: M1 to O6 and the like.
fn rules_cited(line: &str) -> Vec<&str> {
    let is_rule = |word: &&str| {
        let digits = word.strip_prefix(['M', 'O', 'G']).unwrap_or_default();
        (1..=2).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_digit())
    };
    line.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(is_rule).collect()
}

/// The rows of the document's rule tables: number, and cells.
fn rule_rows(document: &str) -> BTreeMap<String, Vec<String>> {
    let rows = document.lines().filter(|line| line.starts_with("| **"));
    rows.map(|row| {
        let cells: Vec<_> =
            row.trim_matches('|').split(" | ").map(|it| it.trim().to_owned()).collect();
        (cells[0].trim_matches('*').to_owned(), cells)
    })
    .collect()
}

#[test]
fn every_rule_that_is_cited_exists_and_every_rule_is_kept_and_checked_somewhere() {
    let document = protocol();
    let rows = rule_rows(&document);
    let mut wrong = Violations::default();
    for (path, text) in [sources("src"), sources("tests")].concat() {
        for (number, line) in text.lines().enumerate() {
            let is_comment = line.contains("//") || line.contains('"');
            for rule in rules_cited(line).into_iter().filter(|_| is_comment) {
                if !rows.contains_key(rule) {
                    let what = format!("cites {rule}, which docs/PROTOCOL.md does not have");
                    wrong.add(&path, number + 1, what);
                }
            }
        }
    }
    let code: String =
        [sources("src"), sources("tests")].concat().into_iter().map(|(_, text)| text).collect();
    for (rule, cells) in &rows {
        if cells.len() != 4 {
            wrong.add("docs/PROTOCOL.md", 1, format!("{rule}: rule, text, kept by, checked by"));
            continue;
        }
        for path in cells[2].split('`').skip(1).step_by(2) {
            if !root().join("src").join(path).exists() {
                wrong.add("docs/PROTOCOL.md", 1, format!("{rule}: there is no src/{path}"));
            }
        }
        for test in cells[3].split('`').skip(1).step_by(2) {
            if !code.contains(&format!("fn {test}(")) {
                wrong.add("docs/PROTOCOL.md", 1, format!("{rule}: there is no test `{test}`"));
            }
        }
    }
    wrong.check();
}

#[test]
fn every_answer_to_bad_input_is_held_by_tests_that_exist() {
    let code: String =
        [sources("src"), sources("tests")].concat().into_iter().map(|(_, text)| text).collect();
    let mut wrong = Violations::default();
    let mut count = 0;
    for (number, row) in text("docs/FAULTS.md").lines().enumerate() {
        let cells: Vec<_> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        if !row.starts_with("| ") || cells[0] == "bad input" || cells[0] == "---" {
            continue;
        }
        count += 1;
        let tests: Vec<_> =
            cells.last().map_or("", |it| *it).split('`').skip(1).step_by(2).collect();
        if cells.len() != 3 || tests.is_empty() {
            wrong.add("docs/FAULTS.md", number + 1, "bad input, answer, and at least one test");
        }
        for test in tests.iter().filter(|test| !code.contains(&format!("fn {test}("))) {
            wrong.add("docs/FAULTS.md", number + 1, format!("there is no test `{test}`"));
        }
    }
    assert!(count > 30, "the tables of docs/FAULTS.md were not found");
    wrong.check();
}

/// The value of a product of whole numbers, as constants are written.
fn product(text: &str) -> Option<u64> {
    text.split('*').map(|factor| factor.trim().replace('_', "").parse::<u64>().ok()).product()
}

/// What a constant or default is in the code, in the document's words: a number, or a span.
fn value_in(source: &str, name: &str) -> Option<String> {
    let value = source.lines().find_map(|line| {
        let (left, right) = line.split_once(" = ").or_else(|| line.split_once(": "))?;
        let left = left.split(':').next()?;
        let is_it = left.split_whitespace().last() == Some(name);
        let right = right.trim_end_matches([',', ';']);
        (is_it
            && !right.starts_with("Duration,")
            && right != "Duration"
            && !["usize", "u32", "u64"].contains(&right))
        .then(|| right.to_owned())
    })?;
    let unit =
        |call: &str| value.strip_prefix(call).and_then(|rest| product(rest.strip_suffix(')')?));
    unit("Duration::from_secs(")
        .map(|secs| format!("{secs} s"))
        .or_else(|| unit("Duration::from_millis(").map(|millis| format!("{millis} ms")))
        .or_else(|| product(&value).map(|number| number.to_string()))
}

#[test]
fn the_limits_in_the_document_are_those_of_the_code() {
    let document = protocol();
    let rows = document.lines().filter(|line| line.starts_with("| `") && line.ends_with(".rs` |"));
    let mut count = 0;
    let mut wrong = Violations::default();
    for row in rows {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [name, value, .., path] = cells[..] else { continue };
        let (name, path) = (name.trim_matches('`'), format!("src/{}", path.trim_matches('`')));
        count += 1;
        if !Path::new(&root().join(&path)).exists() {
            wrong.add("docs/PROTOCOL.md", 1, format!("{name}: there is no {path}"));
        } else if value_in(&text(&path), name).as_deref() != Some(value) {
            let real = value_in(&text(&path), name);
            wrong.add(&path, 1, format!("{name} is {real:?}; docs/PROTOCOL.md says {value:?}"));
        }
    }
    assert!(count > 20, "the table of limits was not found");
    wrong.check();
}

#[test]
fn every_attack_in_the_document_has_all_cells_and_its_test_exists() {
    let document = text("docs/SECURITY.md");
    let code = [sources("src"), sources("tests")].concat();
    let lines: Vec<_> = code.iter().flat_map(|(_, text)| text.lines()).map(str::trim).collect();
    let is_test = |name: &str| {
        let head = format!("fn {name}(");
        lines.windows(2).any(|pair| pair[0] == "#[test]" && pair[1].starts_with(&head))
    };
    let (mut count, mut is_table) = (0, false);
    let mut wrong = Violations::default();
    for (number, line) in document.lines().enumerate() {
        is_table = line.starts_with("| attacker |") || (is_table && line.starts_with('|'));
        if !is_table || line.starts_with("| attacker |") || line.starts_with("| ---") {
            continue;
        }
        count += 1;
        let cells: Vec<_> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [.., test] = cells[..] else { continue };
        let name = test.trim_matches('`');
        if cells.len() != 5 {
            wrong.add("docs/SECURITY.md", number + 1, "a row has five cells".to_owned());
        } else if test != "—" && !is_test(name) {
            wrong.add("docs/SECURITY.md", number + 1, format!("there is no test `{name}`"));
        }
    }
    assert!(count > 30, "the tables of attacks were not found");
    wrong.check();
}

// Circles of imports.

/// The largest circles of imports, in files, of the modules that had some when this rule came.
/// Lower a number when a circle shrinks, and delete the line when there is none; never raise one.
const CIRCLES: &[(&str, usize)] =
    &[("machine", 7), ("model", 3), ("node", 2), ("runtime", 7), ("sim", 8)];

/// Words that are followed by the name that they define.
const DEFINERS: &[&str] = &["fn", "struct", "enum", "trait", "type", "const", "static"];

/// A path of names, of a module or in the code.
type Names = Vec<String>;

/// One file, as far as imports go.
#[derive(Default)]
struct File {
    path: String,
    /// Imports: the path, the name here, and whether other files may have it from here.
    imports: Vec<(Names, String, bool)>,
    /// Paths in the code, outside of imports; a name alone is a path of one.
    named: BTreeSet<Names>,
    defined: BTreeSet<String>,
    children: BTreeSet<String>,
}

/// The words of Rust code, each `::`, and each other sign; without comments and texts.
fn tokens(code: &str) -> Vec<&str> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let end_of_text = |text: &str| {
        let mut is_escaped = false;
        text.find(|c| {
            let is_end = c == '"' && !is_escaped;
            is_escaped = c == '\\' && !is_escaped;
            is_end
        })
    };
    let mut found = Vec::new();
    let mut rest = code.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("r#\"") {
            rest.find("\"#").map_or(rest.len(), |end| end + 2)
        } else if first == '"' {
            end_of_text(&rest[1..]).map_or(rest.len(), |end| end + 2)
        } else if rest.starts_with("'\"'") {
            3
        } else {
            let word = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
            let length = if rest.starts_with("::") { 2 } else { word.max(first.len_utf8()) };
            found.push(&rest[..length]);
            length
        };
        rest = rest[length..].trim_start();
    }
    found
}

fn is_word(token: &&str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Reads the tree of a `use` item.
fn read_imports<'a>(
    tokens: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>,
    prefix: &[String],
    found: &mut Vec<(Names, String)>,
) {
    let mut path = prefix.to_vec();
    let mut name = None;
    while let Some(token) = tokens.next_if(|it| ![",", "}", ";"].contains(it)) {
        match token {
            "::" => {}
            "as" => name = tokens.next().map(str::to_owned),
            "{" => {
                while tokens.peek().is_some() && tokens.next_if_eq(&"}").is_none() {
                    read_imports(tokens, &path, found);
                    tokens.next_if_eq(&",");
                }
                return;
            }
            word => path.push(word.to_owned()),
        }
    }
    if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
        path.pop();
    }
    let name = name.or_else(|| path.last().cloned()).unwrap_or_default();
    found.push((path, name));
}

impl File {
    fn read(path: &str, text: &str) -> Self {
        let lines: Vec<_> = text.lines().take(production_lines(path, text)).collect();
        let code = lines.join("\n");
        let mut file = Self { path: path.to_owned(), ..Self::default() };
        let mut tokens = tokens(&code).into_iter().peekable();
        let (mut before, mut is_exported) = ("", false);
        while let Some(token) = tokens.next() {
            let mut found = Vec::new();
            match token {
                "pub" => {
                    if tokens.next_if_eq(&"(").is_some() {
                        tokens.by_ref().find(|it| *it == ")");
                    }
                    is_exported = true;
                    continue;
                }
                "use" if tokens.peek() != Some(&"<") => read_imports(&mut tokens, &[], &mut found),
                "mod" => {
                    let child = tokens.next().unwrap_or_default();
                    if tokens.next_if_eq(&";").is_some() {
                        file.children.insert(child.to_owned());
                    }
                }
                _ if DEFINERS.contains(&token) => {
                    let name = tokens.next_if(|it| is_word(it) && !DEFINERS.contains(it));
                    file.defined.extend(name.map(str::to_owned));
                }
                _ if is_word(&token) && !["::", "."].contains(&before) => {
                    let mut path = vec![token.to_owned()];
                    while tokens.next_if_eq(&"::").is_some() {
                        path.extend(tokens.next_if(is_word).map(str::to_owned));
                    }
                    file.named.insert(path);
                }
                _ => {}
            }
            file.imports.extend(found.into_iter().map(|(path, name)| (path, name, is_exported)));
            (before, is_exported) = (token, false);
        }
        file
    }
}

/// All files of `src`, by their modules' paths.
struct Files(BTreeMap<Names, File>);

impl Files {
    fn read(sources: &[(String, String)]) -> Self {
        let read = |(path, text): &(String, String)| {
            let inside = path.trim_start_matches("src/").trim_end_matches(".rs");
            let inside = inside.trim_end_matches("/mod").trim_end_matches("lib");
            let module = inside.split('/').filter(|it| !it.is_empty()).map(str::to_owned).collect();
            (module, File::read(path, text))
        };
        let is_inside =
            |(path, _): &&(String, String)| !is_test_file(path) && !path.starts_with("src/bin/");
        Self(sources.iter().filter(is_inside).map(read).collect())
    }

    /// A path in the code of `module`, from the root; `None` if it leads out of the crate.
    fn resolve(&self, module: &[String], path: &[String]) -> Option<Names> {
        let supers = path.iter().take_while(|it| *it == "super").count();
        match path.first()?.as_str() {
            "crate" => Some(path[1..].to_vec()),
            "self" => Some([module, &path[1..]].concat()),
            "super" => {
                let parent = &module[..module.len().saturating_sub(supers)];
                Some([parent, &path[supers..]].concat())
            }
            first if self.0[module].children.contains(first) => Some([module, path].concat()),
            _ => None,
        }
    }

    /// The module whose file defines what is at `path`, beyond all re-exports, and whether it is
    /// that module itself.
    fn definer(&self, path: &[String], depth: usize) -> (Names, bool) {
        let is_module = |length: &usize| self.0.contains_key(&path[..*length]);
        let length = (0..=path.len()).take_while(is_module).last().unwrap_or_default();
        let module = &path[..length];
        let Some(name) = path.get(length) else { return (module.to_vec(), true) };
        let file = &self.0[module];
        let import = file.imports.iter().find(|it| it.1 == *name);
        let import = import.filter(|_| depth < 8 && !file.defined.contains(name));
        match import.and_then(|it| self.resolve(module, &it.0)) {
            Some(further) => self.definer(&[&further, &path[length + 1..]].concat(), depth + 1),
            None => (module.to_vec(), false),
        }
    }

    /// The modules whose files the file of `module` imports from. A re-export that the file does
    /// not use itself imports nothing.
    fn imports(&self, module: &Names) -> BTreeSet<Names> {
        let file = &self.0[module];
        let mut found = BTreeSet::new();
        let child = |it: &String| (it.clone(), [&module[..], std::slice::from_ref(it)].concat());
        let mut modules: BTreeMap<String, Names> = file.children.iter().map(child).collect();
        let is_used = |name: &String| file.named.iter().any(|path| path[0] == *name);
        for (path, name, is_exported) in &file.imports {
            let Some(path) = self.resolve(module, path) else { continue };
            match self.definer(&path, 0) {
                (target, true) => drop(modules.insert(name.clone(), target)),
                (target, false) if !is_exported || is_used(name) => drop(found.insert(target)),
                (_, false) => {}
            }
        }
        for path in file.named.iter().filter(|path| path.len() > 1) {
            let inner = modules.get(&path[0]).map(|it| [it, &path[1..]].concat());
            let is_rooted = ["crate", "self", "super"].contains(&path[0].as_str());
            let full = if is_rooted { self.resolve(module, path) } else { inner };
            found.extend(full.map(|it| self.definer(&it, 0).0));
        }
        found.remove(module);
        found.remove(&Vec::new());
        found.into_iter().filter(|it| self.0.contains_key(it)).collect()
    }

    /// The circles: each a set of files of which each imports all others, directly or by others.
    fn circles(&self) -> Vec<Vec<String>> {
        let edges: BTreeMap<_, _> = self.0.keys().map(|it| (it, self.imports(it))).collect();
        let reach = |from: &Names| {
            let (mut seen, mut open) = (BTreeSet::new(), vec![from.clone()]);
            while let Some(next) = open.pop() {
                open.extend(edges[&next].iter().filter(|it| seen.insert((*it).clone())).cloned());
            }
            seen
        };
        let reached: BTreeMap<_, _> = self.0.keys().map(|it| (it, reach(it))).collect();
        let mut circles = BTreeSet::new();
        for (module, all) in reached.iter().filter(|(module, all)| all.contains(**module)) {
            let circle = all.iter().filter(|it| reached[it].contains(*module));
            circles.insert(circle.map(|it| self.0[it].path.clone()).collect::<Vec<_>>());
        }
        circles.into_iter().collect()
    }
}

/// The circles of imports of each module.
fn circles_by_module() -> BTreeMap<String, Vec<Vec<String>>> {
    let mut found: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for circle in Files::read(&sources("src")).circles() {
        let module = circle[0].split(['/', '.']).nth(1).unwrap_or_default().to_owned();
        found.entry(module).or_default().push(circle);
    }
    found
}

#[test]
fn files_of_the_command_line_import_no_circle() {
    let circles = circles_by_module().remove("cli").unwrap_or_default();
    let mut wrong = Violations::default();
    for circle in circles {
        let what = format!("these files import each other in a circle: {}", circle.join(", "));
        wrong.add(&circle[0], 1, what);
    }
    wrong.check();
}

#[test]
fn circles_of_imports_only_shrink() {
    let mut wrong = Violations::default();
    let circles = circles_by_module();
    for (module, circles) in circles.iter().filter(|(module, _)| *module != "cli") {
        let known = CIRCLES.iter().find(|(it, _)| it == module).map_or(0, |(_, size)| *size);
        for circle in circles.iter().filter(|circle| circle.len() > known) {
            let (size, files) = (circle.len(), circle.join(", "));
            wrong.add(
                &circle[0],
                1,
                format!("{size} files import each other, not {known}: {files}"),
            );
        }
    }
    for (module, _) in CIRCLES.iter().filter(|(module, _)| !circles.contains_key(*module)) {
        wrong.add(&format!("src/{module}"), 1, "has no circle now: delete it from CIRCLES");
    }
    wrong.check();
}

#[test]
fn a_circle_is_found_through_lists_names_of_modules_and_re_exports() {
    let circles = |sources: &[(&str, &str)]| {
        let owned: Vec<_> =
            sources.iter().map(|(path, text)| (format!("src/{path}.rs"), (*text).into())).collect();
        Files::read(&owned).circles()
    };
    let root = ("lib", "pub mod a;\npub mod b;");
    let a = ("a", "use crate::b::{self, deep::{Other as Deep}};\npub struct A(b::B);");
    let none: [Vec<String>; 0] = [];
    assert_eq!(circles(&[root, a, ("b/mod", "pub struct B;")]), none);
    let b = ("b/mod", "// crate::a::A\npub struct B(&\"crate::a\");");
    assert_eq!(circles(&[root, a, b]), none);
    let found = circles(&[root, a, ("b/mod", "use super::a;\npub struct B(Box<a::A>);")]);
    assert_eq!(found, [["src/a.rs", "src/b/mod.rs"]]);
    // A module's re-exports bind neither the module nor its parts to each other.
    let module = ("b/mod", "mod one;\nmod two;\npub use one::One;\npub use two::Two;");
    let one = ("b/one", "pub struct One;");
    let two = ("b/two", "use super::One;\npub struct Two(One);");
    assert_eq!(circles(&[root, module, one, two]), none);
    // What the module itself defines or uses does.
    let module = ("b/mod", "mod one;\nuse one::One;\nstruct Both(One);");
    let found = circles(&[root, module, ("b/one", "use super::Both;\npub struct One(Box<Both>);")]);
    assert_eq!(found, [["src/b/mod.rs", "src/b/one.rs"]]);
    let module = ("b/mod", "mod one;\npub const N: u8 = one::one();");
    let one = ("b/one", "pub fn one() -> u8 { super::N }");
    assert_eq!(circles(&[root, module, one]).len(), 1);
}
