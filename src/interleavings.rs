//! What the tests of interleavings share.
//!
//! They run the real code under a checker that chooses which thread goes on at each access to [`sync`](crate::sync).
//! Loom tries all orders of a few threads, and all values that relaxed accesses may see. Shuttle draws random orders of
//! more and longer threads, and treats every access as sequentially consistent. `.ci/interleavings` runs both.

#[cfg(tower_headless_loom)]
mod exhaustive;
#[cfg(tower_headless_shuttle)]
mod random;

#[cfg(tower_headless_loom)]
pub(crate) use exhaustive::{explore, once};
#[cfg(tower_headless_shuttle)]
pub(crate) use random::{Step, explore, step};
