//! Runs one scenario with each policy.

use tower_headless::OutlierDetection;

use crate::{
    client::{CONTENDERS, Contender},
    run::Run,
    scenario::Scenario,
    world::simulate,
};

pub(crate) struct Contest {
    pub(crate) scenario: Scenario,
    pub(crate) seed: u64,
    pub(crate) entries: Vec<Entry>,
}

pub(crate) struct Entry {
    pub(crate) policy: &'static str,
    pub(crate) has_health: bool,
    pub(crate) run: Run,
}

impl Contest {
    /// Runs it with health checks, and without them if the comparison is worth a look; or only `without`.
    pub(crate) fn hold(scenario: Scenario, seed: u64, without: bool) -> Self {
        let with_and_without: &[bool] = match (without, scenario.compares_health) {
            (true, _) => &[false],
            (false, true) => &[true, false],
            (false, false) => &[true],
        };
        let entry = |has_health: &bool, contender: &Contender| {
            let health = if *has_health {
                OutlierDetection::new()
            } else {
                OutlierDetection::off()
            };
            Entry {
                policy: contender.name,
                has_health: *has_health,
                run: simulate(&scenario, contender, &health, seed),
            }
        };
        let entries = with_and_without
            .iter()
            .flat_map(|has_health| {
                CONTENDERS
                    .iter()
                    .map(move |contender| entry(has_health, contender))
            })
            .collect();
        Self {
            scenario,
            seed,
            entries,
        }
    }
}

impl Entry {
    pub(crate) fn name(&self) -> String {
        let Self { policy, .. } = self;
        match self.has_health {
            true => (*policy).to_owned(),
            false => format!("{policy}, no health"),
        }
    }
}
