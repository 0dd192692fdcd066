//! Choices out of bytes. When the bytes are used up every choice is the first one, so that short
//! inputs are valid and end soon.

/// A supply of choices.
#[derive(Debug)]
pub struct Source<'a> {
    bytes: &'a [u8],
}

/// Numbers at which something may break.
const EXTREMES: [u64; 20] = [
    0,
    1,
    2,
    63,
    255,
    65_536,
    299_999,
    300_000,
    u32::MAX as u64,
    u32::MAX as u64 + 1,
    (1 << 62) - 1,
    1 << 62,
    (1 << 62) + 1,
    i64::MAX as u64 - 1,
    i64::MAX as u64,
    1 << 63,
    (1 << 63) + 1,
    u64::MAX - 2,
    u64::MAX - 1,
    u64::MAX,
];

impl<'a> Source<'a> {
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        match self.bytes.split_first() {
            Some((first, rest)) => {
                self.bytes = rest;
                *first
            }
            None => 0,
        }
    }

    /// A number below `bound`, which is at least 1.
    pub fn below(&mut self, bound: usize) -> usize {
        let number = if bound <= 256 {
            usize::from(self.byte())
        } else {
            usize::from(self.byte()) << 8 | usize::from(self.byte())
        };
        number % bound
    }

    /// True in about `percent` of a hundred cases, and not when the bytes are used up.
    pub fn chance(&mut self, percent: u8) -> bool {
        !self.is_empty() && u32::from(self.byte()) * 100 / 256 < u32::from(percent)
    }

    /// One of several.
    pub fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }

    /// A number that is small, extreme, or any.
    pub fn number(&mut self) -> u64 {
        match self.byte() % 4 {
            0 => u64::from(self.byte()),
            1 => self.one(&EXTREMES),
            2 => u64::MAX - u64::from(self.byte() % 3),
            _ => u64::from_be_bytes(self.array()),
        }
    }

    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.byte())
    }

    /// A text: plain, odd, long, or any characters.
    pub fn text(&mut self) -> String {
        match self.byte() % 6 {
            0 => String::new(),
            1 => "plain".to_owned(),
            2 => "\u{0}\n\r\t\"\\\u{7f}\u{2028}\u{10ffff}".to_owned(),
            3 => "x".repeat(self.below(3_000)),
            _ => {
                let bytes: [u8; 12] = self.array();
                String::from_utf8_lossy(&bytes).into_owned()
            }
        }
    }

    /// How long a list is: mostly short, sometimes just at a limit, or beyond it.
    pub fn length(&mut self, limit: usize) -> usize {
        match self.byte() % 32 {
            0 => limit,
            1 => limit + 1,
            short => usize::from(short) % 4,
        }
    }
}
