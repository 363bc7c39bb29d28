//! The classifier of outcomes that a response carries.

use std::sync::Arc;

use http::{HeaderMap, StatusCode};

use crate::{
    error::BoxError,
    outcome::{self, ByStatus, ClassifyHttp},
};

/// The classifier of outcomes. Each request clones it once or twice.
#[derive(Clone)]
pub(in crate::http) enum SharedClassify {
    ByStatus,
    Own(Arc<dyn ClassifyHttp>),
}

impl SharedClassify {
    fn inner(&self) -> &dyn ClassifyHttp {
        match self {
            Self::ByStatus => &ByStatus,
            Self::Own(own) => &**own,
        }
    }
}

impl ClassifyHttp for SharedClassify {
    fn head(&self, status: StatusCode, headers: &HeaderMap) -> outcome::Outcome {
        self.inner().head(status, headers)
    }

    fn trailers(&self, trailers: &HeaderMap) -> Option<outcome::Outcome> {
        self.inner().trailers(trailers)
    }

    fn error(&self, error: &BoxError) -> outcome::Outcome {
        self.inner().error(error)
    }
}
