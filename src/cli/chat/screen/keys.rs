//! Effects of keys.

use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::Screen;
use crate::cli::chat::model::ChatModel;

/// Action that a key asks for beyond the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli::chat) enum KeyAction {
    /// Draw the changes only.
    Nothing,
    /// Take this line as entered.
    Line(String),
    /// Draw everything anew.
    Redraw,
    /// Give the terminal back and stop until the shell goes on with this program.
    Stop,
    /// End the chat.
    Quit,
}

impl Screen {
    /// Handles an event of the terminal.
    pub(in crate::cli::chat) fn tell(&mut self, model: &ChatModel, event: &Event) -> KeyAction {
        match event {
            Event::Key(key) if key.kind != KeyEventKind::Release => self.key(model, *key),
            Event::Paste(text) => {
                self.input.insert(text);
                KeyAction::Nothing
            }
            Event::Resize(..) => KeyAction::Redraw,
            Event::Key(_) | Event::Mouse(_) | Event::FocusGained | Event::FocusLost => {
                KeyAction::Nothing
            }
        }
    }

    #[allow(clippy::wildcard_enum_match_arm, reason = "the keys that do nothing are many")]
    fn key(&mut self, model: &ChatModel, key: KeyEvent) -> KeyAction {
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char(c) if is_control => return self.control(c),
            KeyCode::Char(c) => self.input.insert(c.encode_utf8(&mut [0; 4])),
            KeyCode::Enter => {
                self.scroll.follow();
                return KeyAction::Line(self.input.take());
            }
            KeyCode::Left => self.input.left(),
            KeyCode::Right => self.input.right(),
            KeyCode::Home => self.input.home(),
            KeyCode::End => self.input.end(),
            KeyCode::Backspace => self.input.backspace(),
            KeyCode::Delete => self.input.delete(),
            KeyCode::Up => self.input.older(),
            KeyCode::Down => self.input.newer(),
            KeyCode::PageUp => self.scroll.page_up(model),
            KeyCode::PageDown => self.scroll.page_down(model),
            KeyCode::Esc => self.scroll.follow(),
            _ => {}
        }
        KeyAction::Nothing
    }

    fn control(&mut self, c: char) -> KeyAction {
        match c {
            'c' => return KeyAction::Quit,
            'd' if self.input.text().is_empty() => return KeyAction::Quit,
            'd' => self.input.delete(),
            'a' => self.input.home(),
            'e' => self.input.end(),
            'b' => self.input.left(),
            'f' => self.input.right(),
            'h' => self.input.backspace(),
            'w' => self.input.erase_word(),
            'u' => self.input.erase_head(),
            'k' => self.input.erase_tail(),
            'p' => self.input.older(),
            'n' => self.input.newer(),
            'l' => return KeyAction::Redraw,
            'z' => return KeyAction::Stop,
            _ => {}
        }
        KeyAction::Nothing
    }
}
