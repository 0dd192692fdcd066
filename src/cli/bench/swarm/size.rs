//! Amounts of bytes as people write them: `512M`, `1G`, `64K`, `1000`.

use std::str::FromStr;

/// Bytes; K, M and G are powers of 1,024.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BinarySize(pub u64);

impl FromStr for BinarySize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no amount of bytes; write 512M, 1G, 64K or 1000");
        let text = text.trim();
        let (digits, scale) = match text.char_indices().next_back() {
            Some((at, 'K' | 'k')) => (&text[..at], 1 << 10),
            Some((at, 'M' | 'm')) => (&text[..at], 1 << 20),
            Some((at, 'G' | 'g')) => (&text[..at], 1 << 30),
            Some(_) => (text, 1),
            None => return Err(wrong()),
        };
        let is_number = !digits.is_empty() && digits.bytes().all(|it| it.is_ascii_digit());
        let number = digits.parse::<u64>().ok().filter(|_| is_number);
        number.and_then(|it| it.checked_mul(scale)).map(Self).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_numbers_with_or_without_a_scale() {
        let read = |text: &str| text.parse::<BinarySize>().map(|it| it.0);
        assert_eq!(read("1000"), Ok(1_000));
        assert_eq!(read("64K"), Ok(65_536));
        assert_eq!(read(" 512M "), Ok(536_870_912));
        assert_eq!(read("2g"), Ok(2_147_483_648));
        for wrong in ["", "M", "-1", "1T", "1.5M", "99999999999G", "+5K"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
