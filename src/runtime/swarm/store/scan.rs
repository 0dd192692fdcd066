//! The files of a folder that is to be offered.

use std::fs;
use std::path::Path;

use super::StoreError;
use crate::model::{FILES_MAX, FileEntry, FileList};

/// The files below `folder`, and what was left out: links and special files.
pub(super) fn scan(folder: &Path) -> Result<(FileList, Vec<String>), StoreError> {
    let (mut files, mut left_out) = (Vec::new(), Vec::new());
    let mut open = vec![String::new()];
    while let Some(below) = open.pop() {
        let here = folder.join(&below);
        let failed = |err| StoreError::of("read the folder", &here, err);
        for entry in fs::read_dir(&here).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().into_string().map_err(|name| StoreError::BadName {
                name: name.to_string_lossy().into_owned(),
                reason: "it is not text (UTF-8)",
            })?;
            let path = if below.is_empty() { name } else { format!("{below}/{name}") };
            let meta = entry.metadata().map_err(failed)?;
            if meta.is_dir() {
                open.push(path);
            } else if !meta.is_file() {
                left_out.push(path);
            } else if files.len() == FILES_MAX {
                let reason = format!("the folder has more than {FILES_MAX} files");
                return Err(StoreError::BadList { reason });
            } else {
                files.push(FileEntry { path, size: meta.len() });
            }
        }
    }
    left_out.sort_unstable();
    let list =
        FileList::new(files).map_err(|err| StoreError::BadList { reason: err.to_string() })?;
    Ok((list, left_out))
}
