//! Meaning of a typed line: a text for all members, or a command.
//!
//! Pure: a line goes in, its meaning comes out. A line that begins with `//` is a text that begins
//! with `/`.

use crate::proto::chat::entry::MemberId;

/// Number of messages that `/history` shows by default.
pub(super) const HISTORY: usize = 20;

/// Largest number of messages that one `/history` shows.
pub(super) const HISTORY_MAX: usize = 10_000;

/// Longest name of a room, in bytes.
const ROOM_BYTES_MAX: usize = 64;

/// Lines of `/help`; a screen may be attached to a chat that goes on without it.
pub(super) fn help(is_attached: bool) -> Vec<String> {
    let quit = if is_attached {
        "/quit          end only this screen; the chat goes on where it runs"
    } else {
        "/quit          hand over and end; what is pending is kept and sent at the next start"
    };
    [
        "/status        who I am, my role and term, who leads, who is known, what is pending",
        "/history [N]   the last N final messages (20)",
        "/room NAME     what is typed from now on goes to this room",
        "/rooms         the rooms that were spoken in",
        "/remove ID     remove a member from the group for good, after asking back",
        quit,
        "/help          this list",
        "//text         say a text that begins with a slash",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// A typed line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TypedLine {
    /// The line is empty.
    Nothing,
    /// Send this text.
    Say(String),
    /// Show the status of this member.
    Status,
    /// Show the last so many messages.
    History(usize),
    /// Change the room.
    Room(String),
    /// List the rooms.
    Rooms,
    /// Remove a member.
    Remove(MemberId),
    /// Show the commands.
    Help,
    /// End the chat.
    Quit,
    /// The line cannot be understood, for this reason.
    Wrong(String),
}

/// Parses `line`, if a text may have `message_max` bytes.
pub(super) fn parse(line: &str, message_max: usize) -> TypedLine {
    let line = line.trim_end_matches(['\n', '\r']);
    match line.strip_prefix('/') {
        Some(rest) if rest.starts_with('/') => say(rest, message_max),
        Some(rest) => command(rest),
        None => say(line, message_max),
    }
}

fn say(text: &str, message_max: usize) -> TypedLine {
    if text.trim().is_empty() {
        TypedLine::Nothing
    } else if text.len() > message_max {
        let len = text.len();
        TypedLine::Wrong(format!(
            "not sent: it has {len} bytes, and a message at most {message_max} (--message-max)"
        ))
    } else {
        TypedLine::Say(text.to_owned())
    }
}

fn command(text: &str) -> TypedLine {
    let (name, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let rest = rest.trim();
    let alone = |typed: TypedLine| {
        if rest.is_empty() { typed } else { TypedLine::Wrong(format!("/{name} stands alone")) }
    };
    match name {
        "status" => alone(TypedLine::Status),
        "rooms" => alone(TypedLine::Rooms),
        "help" => alone(TypedLine::Help),
        "quit" => alone(TypedLine::Quit),
        "history" if rest.is_empty() => TypedLine::History(HISTORY),
        "history" => match rest.parse() {
            Ok(count) if (1..=HISTORY_MAX).contains(&count) => TypedLine::History(count),
            _ => TypedLine::Wrong(format!("/history takes a number from 1 to {HISTORY_MAX}")),
        },
        "room" => room(rest).map_or_else(TypedLine::Wrong, TypedLine::Room),
        "remove" => {
            let digits = rest.strip_prefix("peer_").unwrap_or(rest);
            let wrong =
                || TypedLine::Wrong("/remove takes the id of a member: /remove 2".to_owned());
            digits.parse().map_or_else(|_| wrong(), |id| TypedLine::Remove(MemberId(id)))
        }
        _ => TypedLine::Wrong(format!("Unknown command: /{name}; /help lists them")),
    }
}

/// `name` as a room's name, or the reason why it is none.
pub(super) fn room(name: &str) -> Result<String, String> {
    let name = name.strip_prefix('#').unwrap_or(name);
    let is_plain = |c: char| !c.is_control() && !c.is_whitespace();
    if (1..=ROOM_BYTES_MAX).contains(&name.len()) && name.chars().all(is_plain) {
        Ok(name.to_owned())
    } else {
        Err(format!("a room's name is one word of at most {ROOM_BYTES_MAX} bytes: /room general"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_text_or_a_command() {
        let cases = [
            ("hello\n", TypedLine::Say("hello".into())),
            ("  two  words ", TypedLine::Say("  two  words ".into())),
            (" \t\n", TypedLine::Nothing),
            ("", TypedLine::Nothing),
            ("//etc/hosts", TypedLine::Say("/etc/hosts".into())),
            ("/status", TypedLine::Status),
            ("/status  ", TypedLine::Status),
            ("/quit", TypedLine::Quit),
            ("/rooms", TypedLine::Rooms),
            ("/help", TypedLine::Help),
            ("/history", TypedLine::History(20)),
            ("/history 5", TypedLine::History(5)),
            ("/room #cats", TypedLine::Room("cats".into())),
            ("/remove 2", TypedLine::Remove(MemberId(2))),
            ("/remove peer_2", TypedLine::Remove(MemberId(2))),
        ];
        for (line, typed) in cases {
            assert_eq!(parse(line, 100), typed, "{line:?}");
        }
    }

    #[test]
    fn what_cannot_be_done_is_answered_with_what_can() {
        let cases = [
            ("/x", "Unknown command: /x; /help lists them"),
            ("/", "Unknown command: /; /help lists them"),
            ("/quit now", "/quit stands alone"),
            ("/history 0", "1 to 10000"),
            ("/history all", "1 to 10000"),
            ("/room", "one word"),
            ("/room two words", "one word"),
            ("/remove", "/remove 2"),
            ("/remove -1", "/remove 2"),
        ];
        for (line, expected) in cases {
            let TypedLine::Wrong(text) = parse(line, 100) else { panic!("{line} was taken") };
            assert!(text.contains(expected), "{line}: {text}");
        }
    }

    #[test]
    fn a_text_that_is_too_long_is_refused_with_the_limit() {
        assert_eq!(parse(&"é".repeat(50), 100), TypedLine::Say("é".repeat(50)));
        let TypedLine::Wrong(text) = parse(&"é".repeat(51), 100) else { panic!("it was taken") };
        assert!(text.contains("102 bytes") && text.contains("at most 100"), "{text}");
    }
}
