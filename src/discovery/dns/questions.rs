//! All questions about a name: one for each address family, or one for SRV records.

use super::{
    look::Kind,
    lookup::{LookupError, Resolve},
    pod_names::PodNames,
    question::Question,
    walk::Looks,
};
use crate::{
    discovery::{filter::Filter, schedule::Pace},
    endpoint::Endpoint,
};

/// The questions, the preferred family's first.
pub(super) struct Questions(Vec<Question>);

impl Questions {
    pub(super) fn new(kinds: Vec<Kind>, pace: Pace) -> Self {
        let question = |kind| Question::new(kind, pace);
        Self(kinds.into_iter().map(question).collect())
    }

    pub(super) fn iter(&self) -> std::slice::Iter<'_, Question> {
        self.0.iter()
    }

    pub(super) fn iter_mut(&mut self) -> std::slice::IterMut<'_, Question> {
        self.0.iter_mut()
    }

    pub(super) fn refresh(&mut self) {
        self.iter_mut().for_each(Question::refresh);
    }

    /// The looks that a candidate gets: one for each question.
    pub(super) fn looks<R: Resolve>(
        &self,
        resolver: &R,
        filter: &Filter,
        names: &PodNames,
    ) -> Looks<R> {
        Looks {
            resolver: resolver.clone(),
            filter: filter.clone(),
            names: names.clone(),
            kinds: self.iter().map(Question::kind).collect(),
        }
    }

    /// The endpoints to use, and those of the other family. `is_other` says to use the family that isn't preferred. A
    /// family without endpoints gives way to the other.
    pub(super) fn sets(&self, is_other: bool) -> (&[Endpoint], &[Endpoint]) {
        let mut sets = self.iter().map(Question::endpoints);
        let first = sets.next().unwrap_or_default();
        let second = sets.next().unwrap_or_default();
        let is_second = match is_other {
            true => !second.is_empty(),
            false => first.is_empty(),
        };
        match is_second {
            true => (second, first),
            false => (first, second),
        }
    }

    /// The preferred family's endpoints, if each family has its own question.
    pub(super) fn of_preferred_family(&self) -> Option<&[Endpoint]> {
        match &self.0[..] {
            [preferred, _] => Some(preferred.endpoints()),
            _ => None,
        }
    }

    /// Asks for the other family, if one question is for both. Returns false if each family has its own question.
    pub(super) fn change_family(&mut self) -> bool {
        match &mut self.0[..] {
            [question] => {
                question.change_family();
                true
            }
            _ => false,
        }
    }

    pub(super) fn have_endpoints(&self) -> bool {
        self.iter().any(|question| !question.endpoints().is_empty())
    }

    /// Whether it is confirmed that the name has no endpoints.
    pub(super) fn are_gone(&self) -> bool {
        let is_gone = |question: &Question| {
            question.is_confirmed_empty()
                || (question.endpoints().is_empty() && self.is_confirmed_no_name())
        };
        self.iter().all(is_gone)
    }

    /// Whether it is confirmed that the name doesn't exist for any type.
    pub(super) fn is_confirmed_no_name(&self) -> bool {
        self.iter().any(Question::is_confirmed_no_name)
    }

    /// Notes that the name exists, because one question has found records.
    pub(super) fn name_exists(&mut self) {
        self.0.iter_mut().for_each(Question::name_exists);
    }

    /// If it is confirmed that the name doesn't exist, drops the endpoints that a family kept because its own question
    /// fails. Returns true if there were any.
    pub(super) fn drop_nameless(&mut self) -> bool {
        if !self.iter().any(Question::denies_all_types) {
            return false;
        }
        let dropped = self.iter_mut().map(Question::drop_kept);
        dropped.fold(false, |any, dropped| any | dropped)
    }

    /// The answer that the name doesn't exist, if there is one and there are no endpoints.
    pub(super) fn no_name(&self) -> Option<LookupError> {
        let error = self.iter().find_map(Question::no_name);
        error.filter(|_| !self.have_endpoints()).cloned()
    }

    /// Why a question's endpoints, or their absence, are older than its last look; none if none are.
    pub(super) fn failure(&self) -> Option<LookupError> {
        self.iter().find_map(Question::kept).cloned()
    }
}
