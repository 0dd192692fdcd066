//! Cache of the hashes of earlier offers, so that a large file is not hashed at every start.
//!
//! One file an offer, named by a digest of the offer's path. It holds the state of each file (its
//! [`Stamp`](super::files::Stamp)) and is valid only while that is unchanged.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::folder::{Access, Folder};
use super::{ContentStoreError, OfferedFiles};
use crate::proto::swarm::{Hash, Pieces};

const MAGIC: &[u8] = b"folkmoot hashes 2\n";

/// Largest number of offers whose hashes are kept; those that were not asked for longest go first.
const KEPT_MAX: usize = 256;

/// A folder of kept hashes.
#[derive(Clone, Debug)]
pub struct TreeCache {
    folder: PathBuf,
}

impl TreeCache {
    /// The hashes kept in `folder`, which need not exist.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// Hashes of `offer`, if they are known and it has not changed.
    pub(super) fn find(&self, offer: &OfferedFiles, pieces: Pieces) -> Option<Vec<Hash>> {
        let bytes = fs::read(self.folder.join(name(offer))).ok()?;
        let (bytes, sum) = bytes.split_last_chunk::<4>().map(|(rest, sum)| (rest, *sum))?;
        if crc32fast::hash(bytes).to_be_bytes() != sum {
            return None;
        }
        let leaves = bytes.strip_prefix(&head(offer, pieces)[..])?;
        let (leaves, rest) = leaves.as_chunks::<32>();
        (rest.is_empty() && leaves.len() == pieces.count() as usize).then(|| leaves.to_vec())
    }

    /// Forgets the hashes of `offer`, so that they are made anew.
    pub fn forget(&self, offer: &OfferedFiles) {
        let _ = fs::remove_file(self.folder.join(name(offer)));
    }

    /// Keeps the hashes of `offer`.
    pub(super) fn keep(
        &self,
        offer: &OfferedFiles,
        pieces: Pieces,
        leaves: &[Hash],
    ) -> Result<(), ContentStoreError> {
        let folder = Folder::open_or_make(&self.folder)?;
        self.make_room();
        let mut bytes = head(offer, pieces);
        bytes.extend_from_slice(leaves.as_flattened());
        bytes.extend(crc32fast::hash(&bytes).to_be_bytes());
        let (name, draft) = (name(offer), format!("{}.new", name(offer)));
        folder.remove(&draft)?;
        let mut file = folder.file(&draft, Access::Write)?;
        // Not synced: half of it has no valid checksum.
        file.write_all(&bytes).map_err(|err| ContentStoreError::of("write", folder.path(), err))?;
        let path = |name: &str| folder.path().join(name);
        fs::rename(path(&draft), path(&name))
            .map_err(|err| ContentStoreError::of("rename", path(&draft), err))
    }

    fn make_room(&self) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        let is_ours = |path: &Path| path.extension().is_some_and(|it| it == "hashes");
        let mut kept: Vec<_> = entries
            .flatten()
            .filter(|entry| is_ours(&entry.path()))
            .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
            .collect();
        kept.sort_unstable();
        let surplus = (kept.len() + 1).saturating_sub(KEPT_MAX);
        for (_, path) in kept.into_iter().take(surplus) {
            let _ = fs::remove_file(path);
        }
    }
}

fn name(offer: &OfferedFiles) -> String {
    let at = offer.files.folder().path().join(offer.name());
    let digest = Sha256::digest(at.as_os_str().as_encoded_bytes());
    format!("{}.hashes", hex::encode(&digest[..16]))
}

fn head(offer: &OfferedFiles, pieces: Pieces) -> Vec<u8> {
    let mut looks = Sha256::new();
    for (extent, stamp) in offer.layout.extents().iter().zip(&offer.stamps) {
        looks.update((extent.path.len() as u64).to_be_bytes());
        looks.update(extent.path.as_bytes());
        stamp.update(&mut |part| looks.update(part));
    }
    let mut head = MAGIC.to_vec();
    head.extend(pieces.size().to_be_bytes());
    head.extend(pieces.piece_size().to_be_bytes());
    head.extend(looks.finalize());
    head
}
