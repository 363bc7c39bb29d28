//! How long a healthy pod works on a request.

use std::time::Duration;

use rand::{Rng, RngExt};
use rand_distr::{Distribution, Exp1, LogNormal};

#[derive(Clone, Debug)]
pub(crate) enum Work {
    /// A long tail, as most services have: half of the requests take less than the median, and one in a thousand takes
    /// e^(3.1 × sigma) times as much.
    LogNormal { median: Duration, sigma: f64 },
    /// Memoryless, as queueing theory likes it.
    Exponential { mean: Duration },
    /// One kind of request or the other; the second one has this part of them.
    Mixed(Box<(Work, Work)>, f64),
}

impl Work {
    /// What a web service does: 5 ms, 23 ms in one of a hundred, 48 ms in one of a thousand… and never much more.
    pub(crate) fn web() -> Self {
        Self::log_normal(5)
    }

    pub(crate) fn log_normal(milliseconds: u64) -> Self {
        Self::LogNormal {
            median: Duration::from_millis(milliseconds),
            sigma: 0.5,
        }
    }

    pub(crate) fn draw(&self, rng: &mut impl Rng) -> Duration {
        match self {
            Self::LogNormal { median, sigma } => {
                let factor = LogNormal::new(0.0, *sigma).expect("a finite sigma");
                median.mul_f64(factor.sample(rng))
            }
            Self::Exponential { mean } => mean.mul_f64(Exp1.sample(rng)),
            Self::Mixed(kinds, second) => {
                if rng.random_bool(*second) {
                    kinds.1.draw(rng)
                } else {
                    kinds.0.draw(rng)
                }
            }
        }
    }
}
