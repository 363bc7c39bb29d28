//! The promises about subsets.

use crate::{
    broadcasts::Broadcast,
    cluster::{Cluster, Told, Wanted},
    plan::{Config, Hosts},
    view::{Seen, View},
    world::{Broken, broken},
};

const UNKNOWN: usize = usize::MAX;

/// What has been seen of the subset so far.
#[derive(Default)]
pub(crate) struct Part {
    /// The pods that requests have asked for one by one.
    wanted: Vec<Wanted>,
    /// The set in which substitutes joined, while some are there; [`UNKNOWN`] if it may be any.
    extended_in: Option<usize>,
    /// The set of the last check.
    checked_in: usize,
}

impl Part {
    /// Notes a request that may be for one pod.
    pub(crate) fn note(&mut self, wanted: Wanted) {
        if wanted.is_some() && !self.wanted.contains(&wanted) {
            self.wanted.push(wanted);
        }
    }

    /// Whether a request has asked for the pod at this address.
    pub(crate) fn is_wanted(&self, told: &Told, host: u8) -> bool {
        let wanted = self.wanted.iter().flatten();
        let mut for_one = wanted.filter(|(by, _)| !by.is_others());
        for_one.any(|&wanted| told.fits(Some(wanted), host))
    }

    pub(crate) fn check(
        &mut self,
        config: &Config,
        cluster: &Cluster,
        view: &View,
        broadcasts: &[Broadcast],
    ) -> Result<(), Broken> {
        let Some(told) = cluster.told.last().filter(|_| config.subset > 0) else {
            return Ok(());
        };
        let sets = cluster.told.len();
        let checked_in = std::mem::replace(&mut self.checked_in, sets);
        let size = usize::from(config.subset).min(told.set.len());
        let shown = view.pods.iter().map(|seen| seen.life.host);
        let shown = shown.fold(Hosts::default(), Hosts::toggle);
        if let Some(host) = shown.iter().find(|&host| !told.set.contains(host)) {
            return broken("a subset is of discovery's set", format!("{host} is not"));
        }
        let is_whole = broadcasts.iter().any(Broadcast::is_running);
        let is_wanted = |host| self.is_wanted(told, host);
        // Pods without weight in discovery may be there for either reason.
        let is_outside =
            |seen: &&Seen| seen.status.endpoint.weight() == 0 && cluster.weight(seen.life.host) > 0;
        let mut outside = view.pods.iter().filter(is_outside);
        if let Some(seen) = outside.find(|seen| !is_whole && !is_wanted(seen.life.host)) {
            return broken(
                "no pod is in the set without a reason",
                seen.status.to_string(),
            );
        }
        if !told.set.iter().all(|host| cluster.weight(host) > 0) {
            self.extended_in = Some(UNKNOWN);
            return Ok(());
        }
        let used: Vec<_> = view.pods.iter().filter(|seen| !is_outside(seen)).collect();
        let accepting = used.iter().filter(|seen| seen.may_accept()).count();
        // If requests leave a pod out and find no other one, the pod counts as not accepting.
        let is_left_out = |seen: &Seen| {
            let mut left_out = self
                .wanted
                .iter()
                .flatten()
                .filter(|(by, _)| by.is_others());
            left_out.any(|&wanted| !told.fits(Some(wanted), seen.life.host))
        };
        let has_failed =
            |seen: &Seen| seen.may_have_refused() || cluster.failed_checks(seen.life.host) > 0;
        // A pod that a panic has brought back looks available, but counts as refusing. If this many have failed, there
        // may be a panic.
        let well = used
            .iter()
            .filter(|seen| seen.is_available() && !has_failed(seen));
        let may_panic = (well.count() as f64) < used.len() as f64 * config.panic_threshold;
        // A pod that has to pass a check first, and has failed one, also counts as refusing.
        let is_hidden = |seen: &Seen| may_panic || !seen.is_available();
        let may_refuse = |seen: &Seen| {
            !seen.may_accept()
                || is_left_out(seen)
                || has_failed(seen) && is_hidden(seen)
                || seen.may_lack_room(config)
        };
        let refusing = used.iter().filter(|seen| may_refuse(seen)).count();
        let wrong = |promise, why: &str| {
            let (used, told) = (used.len(), told.set.len());
            let what = format!("{used} of {told}, {accepting} accept, size {size}: {why}");
            broken(promise, what)
        };
        if used.len() < size {
            return wrong("a subset has its size", "fewer");
        }
        if used.len() == size {
            self.extended_in = None;
            if size < told.set.len() && accepting < size.div_ceil(2) {
                return wrong("a subset has substitutes where it needs some", "none");
            }
            return Ok(());
        }
        if refusing <= size / 4 {
            return wrong("a subset has substitutes only where it needs some", "some");
        }
        if used.len() < told.set.len() && accepting < size {
            return wrong("a subset has substitutes where it needs some", "too few");
        }
        // Several sets may have come since the last check, and substitutes may have joined in any of them.
        let joined_in = match sets == checked_in {
            true => sets,
            false => UNKNOWN,
        };
        // If pods have left, they may be the ones that refused.
        let may_have = |seen: &&&Seen| may_refuse(seen) || has_failed(seen);
        let most = size + used.iter().filter(may_have).count();
        if *self.extended_in.get_or_insert(joined_in) == sets && used.len() > most {
            return wrong("a subset has no more substitutes than it needs", "more");
        }
        Ok(())
    }
}
