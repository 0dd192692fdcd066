//! Division of the content's bytes among its files.

use std::ops::Range;

use crate::model::{FileAttributes, FileList};

/// One file, and its place in the content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// Path below the folder.
    pub(super) path: String,
    /// Offset in the content at which the file begins.
    pub(super) start: u64,
    /// Length of the file, in bytes.
    pub(super) len: u64,
    /// Permissions and time of the file.
    pub(super) traits: FileAttributes,
}

/// A run of bytes within one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ByteRun {
    /// The file's number.
    pub(super) file: usize,
    /// Offset in the file at which the run begins.
    pub(super) offset: u64,
    /// Length of the run in bytes, at least one.
    pub(super) len: u64,
}

/// The files one after the other, without a gap; and the empty folders beside them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    extents: Vec<Extent>,
    folders: Vec<String>,
}

impl Layout {
    /// Layout of a content that is one file.
    pub(super) fn single(path: &str, len: u64, traits: FileAttributes) -> Self {
        let extents = vec![Extent { path: path.to_owned(), start: 0, len, traits }];
        Self { extents, folders: Vec::new() }
    }

    /// Layout of a content that is the files of a list.
    pub(super) fn of(list: &FileList) -> Self {
        let mut start = 0;
        let (mut extents, mut folders) = (Vec::new(), Vec::new());
        for entry in list.files() {
            if let Some(folder) = entry.as_folder() {
                folders.push(folder.to_owned());
                continue;
            }
            let (path, len, traits) = (entry.path.clone(), entry.size, entry.traits());
            extents.push(Extent { path, start, len, traits });
            start += len;
        }
        Self { extents, folders }
    }

    /// Files in the order of the content.
    pub(super) fn extents(&self) -> &[Extent] {
        &self.extents
    }

    /// Paths of the empty folders.
    pub(super) fn folders(&self) -> &[String] {
        &self.folders
    }

    /// Runs of the content's bytes `range` in the files.
    pub(super) fn runs(&self, range: Range<u64>) -> impl Iterator<Item = ByteRun> + '_ {
        let first = self.extents.partition_point(|it| it.start + it.len <= range.start);
        let (mut at, mut file) = (range.start, first);
        std::iter::from_fn(move || {
            while at < range.end {
                let extent = self.extents.get(file)?;
                let end = range.end.min(extent.start + extent.len);
                let run = ByteRun { file, offset: at - extent.start, len: end.saturating_sub(at) };
                (at, file) = (at.max(end), file + 1);
                if run.len > 0 {
                    return Some(run);
                }
            }
            None
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::FileEntry;

    fn layout(sizes: &[u64]) -> Layout {
        let file = |(number, size): (usize, &u64)| FileEntry::new(format!("{number:03}"), *size);
        Layout::of(&FileList::new(sizes.iter().enumerate().map(file).collect()).unwrap())
    }

    fn runs(layout: &Layout, range: Range<u64>) -> Vec<(usize, u64, u64)> {
        layout.runs(range).map(|run| (run.file, run.offset, run.len)).collect()
    }

    #[test]
    fn a_range_falls_into_the_files_it_touches_and_skips_empty_ones() {
        let layout = layout(&[0, 5, 0, 0, 3, 10, 0]);
        assert_eq!(runs(&layout, 0..18), [(1, 0, 5), (4, 0, 3), (5, 0, 10)]);
        assert_eq!(runs(&layout, 4..6), [(1, 4, 1), (4, 0, 1)]);
        assert_eq!(runs(&layout, 5..8), [(4, 0, 3)]);
        assert_eq!(runs(&layout, 8..9), [(5, 0, 1)]);
        assert_eq!(runs(&layout, 17..18), [(5, 9, 1)]);
        assert_eq!(runs(&layout, 3..3), []);
    }

    #[test]
    fn every_byte_has_one_place() {
        let sizes = [1, 0, 7, 2, 2, 0, 30, 1];
        let layout = layout(&sizes);
        for start in 0..43 {
            for end in start..=43 {
                let mut at = start;
                for run in layout.runs(start..end) {
                    let extent = &layout.extents()[run.file];
                    assert_eq!(extent.start + run.offset, at);
                    assert!(run.offset + run.len <= extent.len);
                    at += run.len;
                }
                assert_eq!(at, end);
            }
        }
    }
}
