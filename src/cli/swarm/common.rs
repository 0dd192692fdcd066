//! `CommonConfig.cfg`: settings that all peers of an assignment's swarm share.
//!
//! Six keys, one a line, in any order: `NumberOfPreferredNeighbors`, `UnchokingInterval`,
//! `OptimisticUnchokingInterval` (seconds), `FileName`, `FileSize`, `PieceSize` (bytes). Blanks,
//! tabs, CRLF, a byte order mark, comments after `#` and a missing last newline are all the same.
//! A key that is missing, doubled or unknown is an error with its line and remedy: peers that
//! guess differently would never finish.

use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use super::lines;
use crate::cli::config::ConfigError;
use crate::model::name_complaint;
use crate::proto::swarm::Pieces;

/// Largest number of preferred neighbors; each is an upload at the same time.
const PREFERRED_MAX: u32 = 1_000;

/// Longest interval between two choices, in seconds: a day.
const INTERVAL_SECS_MAX: u64 = 24 * 60 * 60;

/// The keys, as they are written.
const KEYS: [&str; 6] = [
    "NumberOfPreferredNeighbors",
    "UnchokingInterval",
    "OptimisticUnchokingInterval",
    "FileName",
    "FileSize",
    "PieceSize",
];

/// The content of `CommonConfig.cfg`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommonConfig {
    /// Number of neighbors that are unchoked for their uploads.
    pub preferred: u32,
    /// Interval at which they are chosen.
    pub unchoking: Duration,
    /// Interval at which one more neighbor is unchoked at random.
    pub optimistic: Duration,
    /// Name of the file, which is no path.
    pub file_name: String,
    /// Size of the file and its pieces.
    pub pieces: Pieces,
}

/// Reads the file at `path`.
///
/// # Errors
/// [`ConfigError`] for any fault of the file.
pub fn read(path: &Path) -> Result<CommonConfig, ConfigError> {
    let text = lines::read(path, "it says which file is shared: create it, or name it --config")?;
    parse(path, &text)
}

/// Reads the text of the file at `path`.
///
/// # Errors
/// See [`read`].
pub fn parse(path: &Path, text: &str) -> Result<CommonConfig, ConfigError> {
    let mut values: [Option<(usize, &str)>; KEYS.len()] = [None; KEYS.len()];
    for (number, line) in lines::of(text) {
        let fault = |reason| ConfigError { file: path.into(), line: Some(number), reason };
        let (key, value) = line.split_once([' ', '\t']).unwrap_or((line, ""));
        let Some(at) = KEYS.iter().position(|known| known.eq_ignore_ascii_case(key)) else {
            let known = KEYS.join(", ");
            return Err(fault(format!("{key:?} is no key; write one of {known}, and its value")));
        };
        let value = value.trim();
        if value.is_empty() {
            return Err(fault(format!("{key} has no value; write it after the key")));
        }
        if let Some((before, _)) = values[at].replace((number, value)) {
            return Err(fault(format!("{key} was set in line {before} already; remove one")));
        }
    }
    let value = |at: usize| {
        values[at].map(|(line, value)| Value { path, line, key: KEYS[at], value }).ok_or_else(
            || {
                let reason = format!("lacks {}; add a line with it and its value", KEYS[at]);
                ConfigError { file: path.into(), line: None, reason }
            },
        )
    };
    let preferred = value(0)?.number(1, PREFERRED_MAX)?;
    let unchoking = Duration::from_secs(value(1)?.number(1, INTERVAL_SECS_MAX)?);
    let optimistic = Duration::from_secs(value(2)?.number(1, INTERVAL_SECS_MAX)?);
    let name = value(3)?;
    check_name(name.value).map_err(|reason| name.fault(reason))?;
    let size = value(4)?.number(0, u64::MAX)?;
    let piece = value(5)?;
    let pieces = Pieces::new(size, piece.number(1, u32::MAX)?).map_err(|it| piece.fault(it))?;
    Ok(CommonConfig { preferred, unchoking, optimistic, file_name: name.value.to_owned(), pieces })
}

/// A value and its place in the file.
struct Value<'a> {
    path: &'a Path,
    line: usize,
    key: &'static str,
    value: &'a str,
}

impl Value<'_> {
    fn fault(&self, reason: String) -> ConfigError {
        ConfigError { file: self.path.into(), line: Some(self.line), reason }
    }

    /// A whole number from `min` to `max`.
    fn number<T: Copy + FromStr + PartialOrd + std::fmt::Display>(
        &self,
        min: T,
        max: T,
    ) -> Result<T, ConfigError> {
        let Self { key, value, .. } = self;
        let digits = value.bytes().all(|byte| byte.is_ascii_digit());
        match value.parse() {
            Ok(number) if digits && number >= min && number <= max => Ok(number),
            Ok(_) | Err(_) => {
                Err(self.fault(format!("{key} is {value:?}; write a whole number, {min} to {max}")))
            }
        }
    }
}

/// Checks that a name stays within its folder (S1).
fn check_name(name: &str) -> Result<(), String> {
    name_complaint(name).map_or(Ok(()), |complaint| {
        Err(format!("{name:?} is no plain file name: {complaint}; write the name alone"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLASSIC: &str = "NumberOfPreferredNeighbors 2\nUnchokingInterval 5\n\
        OptimisticUnchokingInterval 15\nFileName TheFile.dat\nFileSize 10000232\nPieceSize 32768\n";

    fn common(text: &str) -> CommonConfig {
        parse(Path::new("Common.cfg"), text).unwrap_or_else(|error| panic!("{text:?}: {error}"))
    }

    #[test]
    fn the_classic_file_is_understood() {
        let common = common(CLASSIC);
        assert_eq!((common.preferred, common.file_name.as_str()), (2, "TheFile.dat"));
        assert_eq!((common.unchoking.as_secs(), common.optimistic.as_secs()), (5, 15));
        assert_eq!((common.pieces.size(), common.pieces.count()), (10_000_232, 306));
    }

    #[test]
    fn order_and_white_space_say_nothing() {
        let reversed: Vec<_> = CLASSIC.lines().rev().collect();
        let cases = [
            reversed.join("\n"),
            CLASSIC.replace('\n', "\r\n"),
            CLASSIC.replace('\n', " \t \n\n"),
            CLASSIC.replace(' ', "\t  "),
            CLASSIC.replace('\n', "  # as agreed\n"),
            format!("\u{feff}# all\n{CLASSIC}"),
            CLASSIC.trim_end().to_owned(),
            CLASSIC.to_lowercase().replace("thefile", "TheFile"),
        ];
        for text in cases {
            assert_eq!(common(&text), common(CLASSIC), "{text:?}");
        }
        let spaced = CLASSIC.replace("TheFile.dat", "The File #1.dat");
        assert_eq!(common(&spaced).file_name, "The File");
        assert_eq!(common(&CLASSIC.replace("TheFile.dat", "a b#1.dat")).file_name, "a b#1.dat");
        assert!(common(&CLASSIC.replace("10000232", "0")).pieces.is_empty());
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line_and_a_remedy() {
        let cases = [
            (String::new(), None, "lacks NumberOfPreferredNeighbors"),
            (CLASSIC.replace("PieceSize 32768", ""), None, "lacks PieceSize"),
            (format!("{CLASSIC}FileSize 1"), Some(7), "in line 5 already"),
            (format!("{CLASSIC}Color red"), Some(7), "\"Color\" is no key"),
            (CLASSIC.replace(" 5\n", "\n"), Some(2), "has no value"),
            (CLASSIC.replace(" 5\n", " five\n"), Some(2), "\"five\"; write a whole number"),
            (CLASSIC.replace(" 5\n", " 0\n"), Some(2), "1 to 86400"),
            (CLASSIC.replace(" 2\n", " -2\n"), Some(1), "\"-2\""),
            (CLASSIC.replace("10000232", "+7"), Some(5), "\"+7\""),
            (CLASSIC.replace("10000232", "99999999999999999999"), Some(5), "0 to"),
            (CLASSIC.replace("32768", "0"), Some(6), "PieceSize is \"0\""),
            (CLASSIC.replace("32768", "99999999"), Some(6), "not 99999999"),
            (CLASSIC.replace("10000232", "10000000000000"), Some(6), "make them larger"),
            (CLASSIC.replace("TheFile.dat", "../TheFile.dat"), Some(4), "no plain file name"),
            (CLASSIC.replace("TheFile.dat", "/TheFile.dat"), Some(4), "separator"),
            (CLASSIC.replace("TheFile.dat", ".."), Some(4), "no plain file name"),
        ];
        for (text, line, reason) in cases {
            let error = parse(Path::new("Common.cfg"), &text).unwrap_err();
            assert_eq!(error.line, line, "{text:?}: {error}");
            assert!(error.to_string().contains(reason), "{text:?}: {error}");
        }
    }
}
