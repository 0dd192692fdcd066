//! List of the files of a folder that is to be offered.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::ContentStoreError;
use crate::machine::swarm::FILES_BYTES_MAX;
use crate::model::{FILES_MAX, FileAttributes, FileEntry, FileList, path_complaint};

/// A folder that is still to be read.
struct Open {
    below: String,
    /// True if it, or one above it, is closed to other users.
    is_private: bool,
}

/// The files below `folder`, and the names that were left out, each with its reason.
pub(super) fn scan(folder: &Path) -> Result<(FileList, Vec<String>), ContentStoreError> {
    let (mut files, mut left_out) = (Vec::new(), Vec::new());
    let mut open = vec![Open { below: String::new(), is_private: false }];
    while let Some(Open { below, is_private }) = open.pop() {
        let here = folder.join(&below);
        let failed = |err| ContentStoreError::of("read the folder", &here, err);
        let is_private = is_private || is_closed(&fs::metadata(&here).map_err(failed)?);
        let before = files.len() + open.len();
        for entry in fs::read_dir(&here).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let join = |name: &str| match below.as_str() {
                "" => name.to_owned(),
                below => format!("{below}/{name}"),
            };
            let name = match entry.file_name().into_string() {
                Ok(name) => name,
                Err(name) => {
                    let path = join(&name.to_string_lossy());
                    left_out.push(format!("{path} (its name is no text in UTF-8: rename it)"));
                    continue;
                }
            };
            let path = join(&name);
            if let Some(reason) = path_complaint(&path) {
                return Err(ContentStoreError::BadName { name: path, reason });
            }
            let meta = entry.metadata().map_err(failed)?;
            if meta.is_dir() {
                open.push(Open { below: path, is_private });
            } else if meta.is_symlink() {
                left_out.push(format!("{path} (a link)"));
            } else if !meta.is_file() {
                left_out.push(format!("{path} (a special file)"));
            } else {
                files.push(entry_of(path, &meta, is_private));
            }
        }
        if files.len() + open.len() == before && !below.is_empty() {
            files.push(FileEntry::folder(&below));
        }
        if files.len() > FILES_MAX {
            let reason = format!(
                "{} has more than {FILES_MAX} files; share an archive of it, or its parts",
                folder.display()
            );
            return Err(ContentStoreError::BadList { reason });
        }
    }
    left_out.sort_unstable();
    let list = FileList::new(files)
        .map_err(|err| ContentStoreError::BadList { reason: err.to_string() })?;
    if list.encode().len() > FILES_BYTES_MAX {
        let reason = format!(
            "that of {} is longer than {FILES_BYTES_MAX} bytes; share an archive of it, or its \
             parts",
            folder.display()
        );
        return Err(ContentStoreError::BadList { reason });
    }
    Ok((list, left_out))
}

fn entry_of(path: String, meta: &Metadata, is_private: bool) -> FileEntry {
    let FileAttributes { run, private, mtime } = traits_of(meta, is_private);
    FileEntry { path, size: meta.len(), run, private, mtime }
}

/// Permissions and time of a file; `is_private` if a folder above it is.
pub(super) fn traits_of(meta: &Metadata, is_private: bool) -> FileAttributes {
    let private = is_private || is_closed(meta);
    FileAttributes { run: meta.mode() & 0o100 != 0, private, mtime: Some(meta.mtime()) }
}

/// True if only the owner has any right.
fn is_closed(meta: &Metadata) -> bool {
    meta.mode() & 0o077 == 0
}
