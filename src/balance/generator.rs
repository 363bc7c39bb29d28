//! A balancer's source of random numbers: the thread's own generator, or one with a seed.

use std::{cell::RefCell, convert::Infallible};

use rand::{Rng, SeedableRng, TryRng, rngs::SmallRng};

use crate::sync::Mutex;

thread_local! {
    /// A small, fast generator: picks need evenness, not secrecy.
    static OF_THREAD: RefCell<SmallRng> = RefCell::new(rand::make_rng());
}

/// A balancer's generator; shared references draw from it.
///
/// The thread's generator takes no lock. It is looked up at each draw, because most picks draw nothing.
#[derive(Debug)]
pub(crate) struct Generator {
    seeded: Option<Mutex<SmallRng>>,
}

impl Generator {
    pub(crate) fn new(seed: Option<u64>) -> Self {
        let seeded = seed.map(|seed| Mutex::new(SmallRng::seed_from_u64(seed)));
        Self { seeded }
    }

    #[inline]
    fn with<T>(&self, draw: impl FnOnce(&mut SmallRng) -> T) -> T {
        match &self.seeded {
            None => OF_THREAD.with_borrow_mut(draw),
            Some(seeded) => locked(seeded, draw),
        }
    }
}

#[cold]
fn locked<T>(generator: &Mutex<SmallRng>, draw: impl FnOnce(&mut SmallRng) -> T) -> T {
    draw(&mut generator.lock())
}

impl TryRng for &Generator {
    type Error = Infallible;

    #[inline]
    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.with(SmallRng::next_u32))
    }

    #[inline]
    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.with(SmallRng::next_u64))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.with(|generator| generator.fill_bytes(bytes));
        Ok(())
    }
}
