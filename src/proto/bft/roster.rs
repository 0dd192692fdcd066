//! Rosters: the first committee of a group as text, one member a line.
//!
//! A line is `ID HOST:PORT KEY`; `#` starts a comment. All members hold the same roster: their
//! order is free, but each id, address and key makes another group. A line that begins with `+` is
//! of a member that joins later, and makes no other group. Every error names file, line, reason and
//! remedy, and nothing is guessed.

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};

use super::committee::{Committee, VOTERS_MAX};
use crate::model::{Endpoint, PublicKey};
use crate::proto::chat::entry::{Member, MemberId};

/// Reason why a roster cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderRosterError {
    /// Path of the file.
    pub file: PathBuf,
    /// The line, counted from 1, if one is to blame.
    pub line: Option<usize>,
    /// Description of the error and its remedy.
    pub reason: String,
}

impl fmt::Display for OrderRosterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}, line {line}: {}", self.file.display(), self.reason),
            None => write!(f, "{}: {}", self.file.display(), self.reason),
        }
    }
}

impl Error for OrderRosterError {}

/// Reads the first committee from `text`, the text of the file at `file`, and the members that join
/// later.
///
/// Fewer than four members bear no liar ([`Committee::liars_borne`]); the caller says so.
///
/// # Errors
/// [`OrderRosterError`] for whatever is wrong with the text; nothing of it is used then.
pub fn parse(file: &Path, text: &str) -> Result<(Committee, Vec<Member>), OrderRosterError> {
    let fault = |line, reason| OrderRosterError { file: file.into(), line, reason };
    let mut members: Vec<(usize, Member)> = Vec::new();
    let mut later = Vec::new();
    for (number, line) in (1..).zip(text.strip_prefix('\u{feff}').unwrap_or(text).lines()) {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let joins = line.strip_prefix('+');
        let member = parse_line(joins.unwrap_or(line));
        let member = member.map_err(|reason| fault(Some(number), reason))?;
        check_distinct(&members, &member).map_err(|reason| fault(Some(number), reason))?;
        if members.len() == VOTERS_MAX {
            let reason =
                format!("is member {}; at most {VOTERS_MAX} can be listed", VOTERS_MAX + 1);
            return Err(fault(Some(number), reason));
        }
        if joins.is_some() {
            later.push(member.id);
        }
        members.push((number, member));
    }
    let members: Vec<_> = members.into_iter().map(|(_, member)| member).collect();
    let (later, founders): (Vec<_>, Vec<_>) =
        members.into_iter().partition(|it| later.contains(&it.id));
    if founders.is_empty() {
        let reason = "lists no member; write ID HOST:PORT KEY on a line for each, with the key \
                      that `peer order keygen` prints";
        return Err(fault(None, reason.to_owned()));
    }
    let committee = Committee::of(founders).map_err(|reason| fault(None, reason.to_owned()))?;
    Ok((committee, later))
}

/// Reads one line of a roster.
///
/// # Errors
/// Fails if the line is none; with the reason and the remedy.
pub fn parse_line(line: &str) -> Result<Member, String> {
    const FORM: &str = "write ID HOST:PORT KEY, as in 1 192.0.2.7:6001 and 64 hexadecimal digits";
    let mut words = line.split_ascii_whitespace();
    let id = words.next().ok_or(FORM)?;
    let at = words.next().ok_or_else(|| format!("{line:?} has no address; {FORM}"))?;
    let key = words.next().ok_or_else(|| format!("{line:?} has no key; {FORM}"))?;
    if let Some(more) = words.next() {
        return Err(format!("{more:?} is one field too many; {FORM}"));
    }
    let id = match id.parse() {
        Ok(number) if number > 0 && id.bytes().all(|byte| byte.is_ascii_digit()) => {
            MemberId(number)
        }
        Ok(_) | Err(_) => return Err(format!("{id:?} is no id; write a number from 1")),
    };
    let at: Endpoint = at.parse().map_err(|_| {
        format!(
            "{at:?} is no address; names are not looked up: write IP:PORT, an IPv6 address in \
             brackets"
        )
    })?;
    if !at.is_callable() {
        return Err(format!(
            "{at} cannot be called by others; write an address that the member's machine has, and \
             a port from 1 to 65535"
        ));
    }
    let key = PublicKey::parse(key).filter(|it| it.ready().is_some()).ok_or_else(|| {
        format!("{key:?} is no public key; write the 64 hexadecimal digits of `peer order keygen`")
    })?;
    Ok(Member { id, at: at.into(), key })
}

fn check_distinct(earlier: &[(usize, Member)], member: &Member) -> Result<(), String> {
    for (line, other) in earlier {
        if other.id == member.id {
            return Err(format!("line {line} has the id {} too; each has its own", member.id.0));
        }
        if other.at == member.at {
            let at = Endpoint::new(member.at.host, member.at.port);
            return Err(format!("{at} was listed in line {line} already; remove one"));
        }
        if other.key == member.key {
            return Err(format!("line {line} has the same key; each member has its own"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::KeyPair;

    fn key(id: u8) -> PublicKey {
        KeyPair::from_secret([id; 32]).public()
    }

    fn read(text: &str) -> Result<Committee, OrderRosterError> {
        parse(Path::new("roster.txt"), text).map(|(committee, _)| committee)
    }

    #[test]
    fn members_that_join_later_make_no_other_group() {
        let four = [line(1), line(2), line(3), line(4)].join("\n");
        let more = format!("{four}\n+ {}\n+{}\n", line(5), line(6));
        let (committee, later) = parse(Path::new("roster.txt"), &more).unwrap();
        assert_eq!(committee, read(&four).unwrap());
        assert_eq!(later.iter().map(|it| it.id.0).collect::<Vec<_>>(), [5, 6]);
        let twice = format!("{four}\n+ {}", line(4));
        assert!(read(&twice).unwrap_err().reason.contains("has the id 4 too"));
        assert!(read(&format!("+ {}", line(1))).unwrap_err().reason.contains("no member"));
    }

    fn line(id: u8) -> String {
        format!("{id} 10.0.0.{id}:6000 {}", key(id))
    }

    #[test]
    fn a_roster_is_the_same_committee_in_any_order_and_with_comments() {
        let plain = [line(1), line(2), line(3), line(4)].join("\n");
        let other = format!(
            "\u{feff}# the four\r\n\n{}\t# second\r\n  {}\n{}\n1\t10.0.0.1:6000   {}",
            line(2),
            line(4),
            line(3),
            key(1).to_string().to_uppercase()
        );
        let committee = read(&plain).unwrap();
        assert_eq!(read(&other).unwrap(), committee);
        assert_eq!((committee.len(), committee.liars_borne(), committee.quorum()), (4, 1, 3));
        assert_eq!(committee.order_id("ledger"), read(&other).unwrap().order_id("ledger"));
        assert_ne!(committee.order_id("ledger"), committee.order_id("other"));
        let six = read(&format!("7 [2001:db8::7]:6001 {}", key(7))).unwrap();
        assert_eq!(six.voters()[0].member.at.host.to_string(), "2001:db8::7");
        assert_eq!(six.liars_borne(), 0);
    }

    #[test]
    fn each_fault_of_a_roster_is_named_with_its_line_and_a_remedy() {
        let (one, two) = (line(1), line(2));
        let with = |second: &str| format!("{one}\n\n{second}");
        let key_one = key(1);
        let cases = [
            (String::new(), None, "lists no member; write ID HOST:PORT KEY"),
            ("# nothing\n".to_owned(), None, "peer order keygen"),
            (with("2"), Some(3), "has no address"),
            (with("2 10.0.0.2:6000"), Some(3), "has no key"),
            (with(&format!("{two} x")), Some(3), "\"x\" is one field too many"),
            (with(&two.replacen('2', "0", 1)), Some(3), "\"0\" is no id"),
            (with(&format!("++{two}")), Some(3), "\"+2\" is no id"),
            (with(&format!("a {two}")), Some(3), "is one field too many"),
            (with(&two.replacen("10.0.0.2", "localhost", 1)), Some(3), "names are not looked up"),
            (with(&two.replacen(":6000", "", 1)), Some(3), "is no address"),
            (with(&two.replacen("10.0.0.2", "0.0.0.0", 1)), Some(3), "cannot be called"),
            (with(&two.replacen(":6000", ":0", 1)), Some(3), "a port from 1 to 65535"),
            (with("2 10.0.0.2:6000 abcd"), Some(3), "\"abcd\" is no public key"),
            (with(&format!("2 10.0.0.2:6000 {}", "02".repeat(32))), Some(3), "no public key"),
            (with(&two.replacen('2', "1", 1)), Some(3), "line 1 has the id 1 too"),
            (with(&two.replacen("10.0.0.2", "10.0.0.1", 1)), Some(3), "in line 1 already"),
            (with(&two.replacen("10.0.0.2", "[::ffff:10.0.0.1]", 1)), Some(3), "in line 1 already"),
            (with(&format!("2 10.0.0.2:6000 {key_one}")), Some(3), "line 1 has the same key"),
        ];
        for (text, line, reason) in cases {
            let error = read(&text).unwrap_err();
            assert_eq!(error.line, line, "{text:?}: {error}");
            assert!(error.reason.contains(reason), "{text:?}: {error}");
            assert!(error.to_string().starts_with("roster.txt"), "{error}");
        }
    }

    #[test]
    fn sixty_four_members_are_taken_and_not_one_more() {
        let list = |count: u8| (1..=count).map(|id| line(id) + "\n").collect::<String>();
        assert_eq!(read(&list(64)).unwrap().len(), 64);
        let error = read(&list(65)).unwrap_err();
        assert_eq!(error.line, Some(65));
        assert!(error.reason.contains("at most 64"), "{error}");
    }
}
