//! A collection of a process's balancers, for pages and metrics that show all of them.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};

use super::Explanation;

/// The balancers of a process, by name: the source of a page and of metrics.
///
/// Clones are the same collection. You can add a balancer at any time. The collection doesn't keep it alive: when its
/// last clone is dropped, it is gone from here.
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
    /// Each balancer with its number.
    by_name: BTreeMap<String, (u64, Explainer)>,
    /// How many were ever added.
    added: u64,
}

impl Balancers {
    /// Makes an empty collection.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a [`Balance`](crate::Balance) or an [`http::Client`](crate::http::Client): pass a reference.
    ///
    /// Its name is its service's, or `balancer` if it has none. If that name is taken, a number follows it:
    /// `web-headless.default #2`. Adding a balancer twice gives two entries.
    pub fn add(&self, balancer: impl Into<Explainer>) -> &Self {
        let explainer = balancer.into();
        let name = explainer
            .service
            .as_deref()
            .unwrap_or("balancer")
            .to_owned();
        self.insert(name, explainer)
    }

    /// Adds a balancer under this name; see [`add`](Self::add).
    pub fn add_as(&self, name: impl Into<String>, balancer: impl Into<Explainer>) -> &Self {
        self.insert(name.into(), balancer.into())
    }

    /// Each balancer's state now, by name.
    pub fn explain(&self) -> BTreeMap<String, Explanation> {
        let all = self.explain_numbered().into_iter();
        all.map(|(name, _, explanation)| (name, explanation))
            .collect()
    }

    /// Each balancer's state now, with its name and a number that no other balancer ever had here.
    pub(crate) fn explain_numbered(&self) -> Vec<(String, u64, Explanation)> {
        // Explaining many endpoints takes long, so the lock isn't held meanwhile.
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

/// Explains one balancer while it lives: `Explainer::from(&balance)`, `Explainer::from(&client)`.
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

    /// The balancer's state now; `None` after its end.
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
