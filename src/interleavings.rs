//! What the tests of interleavings have in common.
//!
//! They run the real code under a checker that chooses which thread goes on at each access of [`sync`](crate::sync). Loom
//! tries all orders of a few threads, with all that relaxed accesses may see. Shuttle draws orders at random, of more and
//! longer threads, and takes every access for sequentially consistent. `.ci/interleavings` runs both.

#[cfg(tower_headless_loom)]
mod exhaustive;
#[cfg(tower_headless_shuttle)]
mod random;

#[cfg(tower_headless_loom)]
pub(crate) use exhaustive::{explore, once};
#[cfg(tower_headless_shuttle)]
pub(crate) use random::{Step, explore, step};
