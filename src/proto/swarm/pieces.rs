//! Pieces: the division of content, and the index of each piece.

use std::ops::Range;

/// Index of a piece of the content, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PieceIndex(pub u32);

/// Greatest size of a piece, in bytes: one is held in memory as a whole.
pub const PIECE_BYTES_MAX: u32 = 16 * 1024 * 1024;

/// Greatest number of pieces of one content. A bitfield of so many is 512 KiB.
pub const PIECES_MAX: u32 = 4 * 1024 * 1024;

/// The division of content into pieces of one size, of which the last may be shorter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pieces {
    size: u64,
    piece_size: u32,
    count: u32,
}

impl Pieces {
    /// Divides content of `size` bytes into pieces of `piece_size` bytes. Empty content
    /// has no pieces.
    ///
    /// # Errors
    /// The reason in words, if the piece size is 0 or above [`PIECE_BYTES_MAX`], or there are more
    /// than [`PIECES_MAX`] pieces.
    pub fn new(size: u64, piece_size: u32) -> Result<Self, String> {
        if piece_size == 0 || piece_size > PIECE_BYTES_MAX {
            return Err(format!("pieces have 1 to {PIECE_BYTES_MAX} bytes, not {piece_size}"));
        }
        let count = size.div_ceil(piece_size.into());
        match u32::try_from(count).ok().filter(|it| *it <= PIECES_MAX) {
            Some(count) => Ok(Self { size, piece_size, count }),
            None => Err(format!("{count} pieces are more than {PIECES_MAX}: make them larger")),
        }
    }

    /// Size of the whole content, in bytes.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Size of every piece but the last, in bytes.
    pub const fn piece_size(&self) -> u32 {
        self.piece_size
    }

    /// Number of pieces in all.
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// The bytes of a piece within the content, if there is such a piece.
    pub fn range(&self, index: PieceIndex) -> Option<Range<u64>> {
        (index.0 < self.count).then(|| {
            let start = u64::from(index.0) * u64::from(self.piece_size);
            start..self.size.min(start + u64::from(self.piece_size))
        })
    }

    /// Size of a piece in bytes, if there is such a piece.
    pub fn len(&self, index: PieceIndex) -> Option<u32> {
        self.range(index).and_then(|it| u32::try_from(it.end - it.start).ok())
    }

    /// True if the content has no bytes.
    pub const fn is_empty(&self) -> bool {
        self.size == 0
    }
}
