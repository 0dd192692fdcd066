//! Numbers of bytes as people write them: `700`, `64K`, `1.5M`, `2G`; also rates, a second.

use std::error::Error;
use std::fmt;
use std::str::FromStr;

/// The units, each with its bytes, the largest first.
const UNITS: [(char, u64); 4] = [('T', 1 << 40), ('G', 1 << 30), ('M', 1 << 20), ('K', 1 << 10)];

/// Largest number of bytes that is accepted; anything above is a slip of the pen.
const SIZE_MAX: u64 = 1 << 50;

/// A number of bytes, above zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// Error of a text that is no size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizeError;

impl fmt::Display for SizeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size is a number of bytes above 0, perhaps with a unit: 700, 64K, 1.5M, 2G")
    }
}

impl Error for SizeError {}

impl FromStr for Size {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let text = text.trim();
        let text = text.strip_suffix("iB").or_else(|| text.strip_suffix('B')).unwrap_or(text);
        let unit = UNITS.iter().find(|(name, _)| text.to_ascii_uppercase().ends_with(*name));
        let (number, scale) =
            unit.map_or((text, 1), |(_, scale)| (&text[..text.len() - 1], *scale));
        let number = number.trim_end();
        let is_plain = |c: char| c.is_ascii_digit() || c == '.';
        if !number.starts_with(|c: char| c.is_ascii_digit()) || !number.chars().all(is_plain) {
            return Err(SizeError);
        }
        let number: f64 = number.parse().map_err(|_| SizeError)?;
        #[allow(clippy::cast_precision_loss, reason = "a size is no exact count beyond 2^53")]
        let (bytes, most) = (number * scale as f64, SIZE_MAX as f64);
        if !(1.0..=most).contains(&bytes) {
            return Err(SizeError);
        }
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is between 1 and 2^50"
        )]
        Ok(Self(bytes.round() as u64))
    }
}

impl fmt::Display for Size {
    /// Three digits and the unit: `1.50 MiB`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.iter().find(|(_, scale)| self.0 >= *scale) {
            None => write!(f, "{} B", self.0),
            Some((name, scale)) => {
                #[allow(clippy::cast_precision_loss, reason = "three digits are shown")]
                let number = self.0 as f64 / *scale as f64;
                let digits = if number < 9.995 { 2 } else { usize::from(number < 99.95) };
                write!(f, "{number:.digits$} {name}iB")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_a_unit() {
        let cases = [
            ("1", 1),
            ("700", 700),
            ("64K", 65_536),
            ("64k", 65_536),
            ("1.5M", 1_572_864),
            ("32MiB", 33_554_432),
            ("2 G", 2_147_483_648),
            ("2GB", 2_147_483_648),
        ];
        for (text, bytes) in cases {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for text in ["", "0", "M", "-1", "1e9", "1.2.3", "5X", "0.1", "inf", "9999T"] {
            assert_eq!(text.parse::<Size>(), Err(SizeError), "{text:?}");
        }
    }

    #[test]
    fn sizes_are_written_with_three_digits() {
        let cases = [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_536, "1.50 KiB"),
            (33_554_432, "32.0 MiB"),
            (123 << 20, "123 MiB"),
            (10 << 20, "10.0 MiB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(Size(bytes).to_string(), text);
        }
    }
}
