//! Hashes of all pieces of an offer, made by several threads at once.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use sha2::{Digest, Sha256};

use super::{ContentStoreError, OfferedFiles, TreeCache};
use crate::machine::swarm::leaf_hash;
use crate::proto::swarm::{Hash, PieceIndex, Pieces};

/// The smallest and the largest size of pieces that is chosen by default.
const PIECE_BYTES_LEAST: u32 = 256 * 1024;
const PIECE_BYTES_MOST: u32 = 4 * 1024 * 1024;

/// Number of pieces that is aimed at: the bitfield stays small, and a false piece costs little.
const PIECES_WANTED: u64 = 2_048;

/// The size of pieces for content of `size` bytes.
#[must_use]
pub fn piece_size_for(size: u64) -> u32 {
    let mut piece_size = PIECE_BYTES_LEAST;
    while piece_size < PIECE_BYTES_MOST && size / u64::from(piece_size) > PIECES_WANTED {
        piece_size *= 2;
    }
    // The largest contents are divided into as many pieces as are allowed.
    while Pieces::new(size, piece_size).is_err() && piece_size < 16 * 1024 * 1024 {
        piece_size *= 2;
    }
    piece_size
}

/// Function called with the bytes done so far; returns false to stop.
pub(super) type Progress<'a> = dyn Fn(u64) -> bool + Sync + 'a;

/// Options of hashing an offer.
pub struct Hashing<'a> {
    /// Number of threads that hash at a time, the calling one among them.
    pub threads: usize,
    /// Cache that keeps hashes from one time to the next.
    pub cache: Option<&'a TreeCache>,
    /// Called after each piece with the bytes done so far; returns whether to go on.
    pub progress: &'a Progress<'a>,
}

impl Hashing<'_> {
    /// The hashes of all pieces of `offer`.
    ///
    /// # Errors
    /// Fails if a file cannot be read or is changed meanwhile, or if `progress` said to stop.
    pub fn leaves(
        &self,
        offer: &OfferedFiles,
        pieces: Pieces,
    ) -> Result<Vec<Hash>, ContentStoreError> {
        if let Some(leaves) = self.cache.and_then(|cache| cache.find(offer, pieces)) {
            (self.progress)(pieces.size());
            return Ok(leaves);
        }
        let leaves = self.hash_all(offer, pieces)?;
        if let Some(cache) = self.cache
            && let Err(err) = cache.keep(offer, pieces, &leaves)
        {
            // The failure costs the next start some time, and has no other effect.
            log::debug!("hashes are not kept: {err}");
        }
        Ok(leaves)
    }

    fn hash_all(
        &self,
        offer: &OfferedFiles,
        pieces: Pieces,
    ) -> Result<Vec<Hash>, ContentStoreError> {
        let count = pieces.count() as usize;
        let work = Work {
            offer,
            pieces,
            next: AtomicU32::new(0),
            done: AtomicU64::new(0),
            leaves: Mutex::new(vec![[0; 32]; count]),
            progress: self.progress,
        };
        let helpers = self.threads.clamp(1, count.max(1)) - 1;
        std::thread::scope(|scope| {
            let mut threads = Vec::new();
            for number in 0..helpers {
                let name = format!("hash:{number}");
                let builder = std::thread::Builder::new().name(name).stack_size(64 * 1024);
                // Without another thread it takes longer.
                threads.extend(builder.spawn_scoped(scope, || work.run()).ok());
            }
            let mut outcome = work.run();
            for helper in threads {
                outcome = outcome.and(helper.join().expect("a helper does not panic"));
            }
            outcome
        })?;
        Ok(work.leaves.into_inner().expect("nothing under this lock can panic"))
    }
}

struct Work<'a> {
    offer: &'a OfferedFiles,
    pieces: Pieces,
    next: AtomicU32,
    done: AtomicU64,
    leaves: Mutex<Vec<Hash>>,
    progress: &'a Progress<'a>,
}

impl Work<'_> {
    /// Hashes piece after piece until none is left, or one fails.
    fn run(&self) -> Result<(), ContentStoreError> {
        let mut data = Vec::new();
        loop {
            let index = PieceIndex(self.next.fetch_add(1, Ordering::Relaxed));
            let Some(range) = self.pieces.range(index) else { return Ok(()) };
            let len = range.end - range.start;
            let outcome = self.read(range, &mut data).and_then(|()| {
                let leaf = leaf_hash(&data);
                self.leaves.lock().expect("nothing under this lock can panic")[index.0 as usize] =
                    leaf;
                let done = self.done.fetch_add(len, Ordering::Relaxed) + len;
                if (self.progress)(done) { Ok(()) } else { Err(ContentStoreError::Stopped) }
            });
            if outcome.is_err() {
                self.next.store(self.pieces.count(), Ordering::Relaxed);
                return outcome;
            }
        }
    }

    fn read(
        &self,
        range: std::ops::Range<u64>,
        data: &mut Vec<u8>,
    ) -> Result<(), ContentStoreError> {
        use std::os::unix::fs::FileExt;
        let OfferedFiles { files, layout, .. } = self.offer;
        data.resize((range.end - range.start) as usize, 0);
        let mut rest = data.as_mut_slice();
        for run in layout.runs(range) {
            let (here, after) = rest.split_at_mut(run.len as usize);
            rest = after;
            let file = files.get(layout, run.file)?;
            file.read_exact_at(here, run.offset).map_err(|err| {
                let path = files.folder().path().join(&layout.extents()[run.file].path);
                ContentStoreError::of("read", path, err)
            })?;
            // Once more: a file that was changed while it was read has another stamp than before.
            files.get(layout, run.file)?;
        }
        Ok(())
    }
}

/// SHA-256 of `bytes`.
pub(super) fn digest(bytes: &[u8]) -> Hash {
    Sha256::digest(bytes).into()
}
