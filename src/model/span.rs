//! Durations as people write them: `500ms`, `5s`, `2m`, `24h`.

use std::error::Error;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Longest span that is accepted; anything above is a slip of the pen.
const SPAN_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// The units, each with its milliseconds, the largest first.
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// A duration in whole milliseconds, above zero, written with its unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// Reason why a text is no span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanError {
    /// No unit, or one that is not known.
    Unit,
    /// No number before the unit.
    Number,
    /// The number is zero.
    Zero,
    /// The span is longer than any useful one.
    TooLong,
}

impl fmt::Display for SpanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unit => "a duration needs its unit: 500ms, 5s, 2m or 24h",
            Self::Number => "a duration is a number and its unit: 500ms, 1.5s, 2m or 24h",
            Self::Zero => "a duration must be at least 1ms",
            Self::TooLong => "a duration can be a year at most",
        })
    }
}

impl Error for SpanError {}

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        let text = text.trim();
        let at = text.find(|c: char| c.is_ascii_alphabetic()).ok_or(SpanError::Unit)?;
        let (number, unit) = text.split_at(at);
        let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit).ok_or(SpanError::Unit)?;
        let number = number.trim_end();
        if !number.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(SpanError::Number);
        }
        let number: f64 = number.parse().map_err(|_| SpanError::Number)?;
        #[allow(clippy::cast_precision_loss, reason = "the scales are far below 2^53")]
        let millis = number * *scale as f64;
        let span = Duration::try_from_secs_f64(millis / 1_000.0);
        match span {
            Ok(span) if span > SPAN_MAX => Err(SpanError::TooLong),
            Ok(span) if span < Duration::from_millis(1) => Err(SpanError::Zero),
            Ok(span) => Ok(Self(Duration::from_millis(whole_millis(span)))),
            Err(_) => Err(SpanError::TooLong),
        }
    }
}

/// The nearest whole number of milliseconds.
fn whole_millis(span: Duration) -> u64 {
    let nearest = span + Duration::from_micros(500);
    u64::try_from(nearest.as_millis()).unwrap_or(u64::MAX)
}

impl fmt::Display for Span {
    /// In the largest unit that leaves no fraction.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = whole_millis(self.0);
        if millis == 0 {
            return f.write_str("0s");
        }
        let (name, scale) =
            UNITS.iter().find(|(_, scale)| millis.is_multiple_of(*scale)).unwrap_or(&("ms", 1));
        write!(f, "{}{name}", millis / scale)
    }
}

impl From<Span> for Duration {
    fn from(span: Span) -> Self {
        span.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_and_written_with_their_unit() {
        let cases =
            [("500ms", 500), ("5s", 5_000), ("1.5s", 1_500), ("2m", 120_000), ("24h", 86_400_000)];
        for (text, millis) in cases {
            assert_eq!(text.parse(), Ok(Span(Duration::from_millis(millis))), "{text}");
        }
        assert_eq!(Span(Duration::from_millis(1_500)).to_string(), "1500ms");
        assert_eq!(Span(Duration::from_secs(90)).to_string(), "90s");
        assert_eq!(Span(Duration::from_secs(7_200)).to_string(), "2h");
        assert_eq!(Span(Duration::ZERO).to_string(), "0s");
    }

    #[test]
    fn what_is_no_span_is_refused_with_the_reason() {
        let cases = [
            ("5", SpanError::Unit),
            ("5 days", SpanError::Unit),
            ("5S", SpanError::Unit),
            ("", SpanError::Unit),
            ("s", SpanError::Number),
            ("-5s", SpanError::Number),
            ("1.2.3s", SpanError::Number),
            ("0s", SpanError::Zero),
            ("0.1ms", SpanError::Zero),
            ("99999999h", SpanError::TooLong),
        ];
        for (text, error) in cases {
            assert_eq!(text.parse::<Span>(), Err(error), "{text:?}");
        }
    }
}
