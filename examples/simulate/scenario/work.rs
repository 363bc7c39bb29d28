//! How long a healthy pod works on a request.

use std::time::Duration;

use rand::{Rng, RngExt};
use rand_distr::{Distribution, Exp1, LogNormal};

#[derive(Clone, Debug)]
pub(crate) enum Work {
    /// A long tail, as in most services: half of the requests take less than the median, and one in a thousand takes
    /// e^(3.1 × sigma) times the median.
    LogNormal { median: Duration, sigma: f64 },
    /// Memoryless, as queueing theory assumes.
    Exponential { mean: Duration },
    /// Two kinds of requests; this part of them is of the second kind.
    Mixed(Box<(Work, Work)>, f64),
}

impl Work {
    /// Like a web service: a median of 5 ms, 23 ms in one of a hundred, 48 ms in one of a thousand, and hardly ever
    /// more.
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
