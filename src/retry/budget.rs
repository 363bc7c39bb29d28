//! The default budget of retries.

use std::{
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use tower::retry::budget::{Budget, TpsBudget};

/// How many retries are allowed: a share of all requests plus some each second, counted over ten seconds.
const SHARE: f32 = 0.2;
const A_SECOND: u32 = 10;
const WINDOW: Duration = Duration::from_secs(10);

/// How many requests make one deposit. tower's budget reads the clock under a lock at each deposit, which would slow
/// every request. It is exact for shares above one that divide 1,000, as `BATCH` × [`SHARE`] does.
const BATCH: u16 = 10;

/// tower's budget, with one deposit for every [`BATCH`] requests.
pub(super) struct DefaultBudget {
    requests: AtomicU32,
    budget: TpsBudget,
}

impl Default for DefaultBudget {
    fn default() -> Self {
        Self {
            requests: AtomicU32::new(0),
            budget: TpsBudget::new(WINDOW, A_SECOND, SHARE * f32::from(BATCH)),
        }
    }
}

impl Budget for DefaultBudget {
    #[inline]
    fn deposit(&self) {
        let before = self.requests.fetch_add(1, Relaxed);
        if before % u32::from(BATCH) == u32::from(BATCH) - 1 {
            self.budget.deposit();
        }
    }

    fn withdraw(&self) -> bool {
        self.budget.withdraw()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_batched_budget_allows_as_many_retries_as_tower_s_own() {
        for requests in [0, 10, 1_000, 50_000] {
            let (ours, towers) = (DefaultBudget::default(), TpsBudget::default());
            for _ in 0..requests {
                ours.deposit();
                towers.deposit();
            }
            let allowed = |budget: &dyn Budget| (0..).take_while(|_| budget.withdraw()).count();
            let reserve = A_SECOND as usize * 10;
            assert_eq!(allowed(&ours), reserve + requests / 5);
            assert_eq!(allowed(&towers), reserve + requests / 5);
        }
    }
}
