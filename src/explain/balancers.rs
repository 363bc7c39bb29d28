//! The balancers of a process, for those who show all of them.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};

use super::Explanation;

/// The balancers of a process, by name: what a page and metrics are made of.
///
/// Clones are the same collection, and a balancer can be added at any time. It doesn't keep one alive: a balancer whose last clone is
/// dropped is no longer in it.
///
/// ```
/// # #[cfg(not(feature = "http"))]
/// # fn main() {}
/// # #[cfg(feature = "http")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower_headless::BoxError> {
/// use tower_headless::{Balancers, http::Client};
///
/// let client = Client::builder("http://web-headless.default:80".parse()?).build()?;
/// let balancers = Balancers::new();
/// balancers.add(&client);
/// for (name, explanation) in balancers.explain() {
///     println!("{name}\n{explanation}");
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Balancers {
    all: Arc<RwLock<Named>>,
}

#[derive(Debug, Default)]
struct Named {
    /// Each with its number.
    by_name: BTreeMap<String, (u64, Explainer)>,
    /// How many were ever added.
    added: u64,
}

impl Balancers {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a [`Balance`](crate::Balance) or an [`http::Client`](crate::http::Client), by a reference to it.
    ///
    /// Its name is its service's, or `balancer` if it has none. If another one has that name, a number is put behind it:
    /// `web-headless.default #2`. One that has been added before is added once more.
    pub fn add(&self, balancer: impl Into<Explainer>) -> &Self {
        let explainer = balancer.into();
        let name = explainer
            .service
            .as_deref()
            .unwrap_or("balancer")
            .to_owned();
        self.insert(name, explainer)
    }

    /// [`add`](Self::add), under this name.
    pub fn add_as(&self, name: impl Into<String>, balancer: impl Into<Explainer>) -> &Self {
        self.insert(name.into(), balancer.into())
    }

    /// What each of them knows of itself now, by name.
    pub fn explain(&self) -> BTreeMap<String, Explanation> {
        let all = self.explain_numbered().into_iter();
        all.map(|(name, _, explanation)| (name, explanation))
            .collect()
    }

    /// [`explain`](Self::explain), with a number that no other one had that was ever added.
    pub(crate) fn explain_numbered(&self) -> Vec<(String, u64, Explanation)> {
        // To explain takes long where there are many endpoints: others may be added meanwhile.
        let all = self.read().by_name.clone().into_iter();
        let explained = all.filter_map(|(name, (number, explainer))| {
            let explanation = explainer.explain()?;
            Some((name, number, explanation))
        });
        explained.collect()
    }

    fn read(&self) -> RwLockReadGuard<'_, Named> {
        self.all.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn insert(&self, name: String, explainer: Explainer) -> &Self {
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        let Named { by_name, added } = &mut *all;
        by_name.retain(|_, (_, explainer)| explainer.is_alive());
        let numbered = (2_u64..).map(|number| format!("{name} #{number}"));
        let mut names = std::iter::once(name.clone()).chain(numbered);
        if let Some(free) = names.find(|name| !by_name.contains_key(name)) {
            *added += 1;
            by_name.insert(free, (*added, explainer));
        }
        self
    }
}

/// Explains one balancer, as long as it lives: `Explainer::from(&balance)`, `Explainer::from(&client)`.
#[derive(Clone)]
pub struct Explainer {
    service: Option<Arc<str>>,
    balancer: Arc<dyn Explains>,
}

/// A balancer that isn't kept alive.
pub(crate) trait Explains: Send + Sync {
    fn explain(&self) -> Option<Explanation>;
    fn is_alive(&self) -> bool;
}

impl Explainer {
    pub(crate) fn new(service: Option<Arc<str>>, balancer: impl Explains + 'static) -> Self {
        let balancer = Arc::new(balancer);
        Self { service, balancer }
    }

    /// What the balancer knows of itself now; none after its end.
    pub fn explain(&self) -> Option<Explanation> {
        self.balancer.explain()
    }

    fn is_alive(&self) -> bool {
        self.balancer.is_alive()
    }
}

impl fmt::Debug for Explainer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Explainer");
        debug
            .field("service", &self.service)
            .finish_non_exhaustive()
    }
}
