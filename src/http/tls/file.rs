//! Files, as they were when last read.

use std::{fmt, fs, path::PathBuf, sync::Arc};

use crate::error::BoxError;

/// A file and its content. Files are equal if their contents are; keys are compared, but never shown.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct File {
    path: PathBuf,
    content: Arc<[u8]>,
}

impl File {
    pub(super) fn read(path: impl Into<PathBuf>) -> Result<Self, BoxError> {
        let path = path.into();
        match fs::read(&path) {
            Ok(content) => Ok(Self {
                path,
                content: content.into(),
            }),
            Err(error) => Err(format!("{}: {error}", path.display()).into()),
        }
    }

    /// Reads the file again.
    pub(super) fn read_again(&self) -> Result<Self, BoxError> {
        Self::read(&self.path)
    }

    pub(super) fn content(&self) -> &[u8] {
        &self.content
    }

    /// Adds the file's name to an error.
    pub(super) fn blame(&self, why: &BoxError) -> BoxError {
        format!("{}: {why}", self.path.display()).into()
    }

    pub(super) fn path(&self) -> impl fmt::Display {
        self.path.display()
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.fmt(f)
    }
}
