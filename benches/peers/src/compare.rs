//! Whether two runs agree on who is before whom.

use std::{cmp::Ordering, fmt};

use crate::{
    rank,
    results::{Cell, Measure, Results},
};

/// What two runs say of all pairs of peers.
#[derive(Default)]
pub struct Comparison {
    /// Pairs that both runs have figures of.
    pub pairs: usize,
    /// Those with the same order, or a tie, in both.
    pub same: usize,
    /// A tie in one run, and the same order by the medians alone.
    pub near: usize,
    /// What one run says and the other denies.
    pub against: Vec<String>,
}

impl Comparison {
    pub fn new(one: &Results, other: &Results) -> Self {
        let mut comparison = Self::default();
        for table in one.tables() {
            for measure in one.measures(table) {
                comparison.column(measure, one, other);
            }
        }
        comparison
    }

    fn column(&mut self, measure: &Measure, one: &Results, other: &Results) {
        let cells: Vec<_> = one.column(measure).collect();
        for (index, first) in cells.iter().enumerate() {
            for second in &cells[..index] {
                let found = [one, other].map(|run| {
                    let rounds = |cell: &Cell| run.cell(measure, &cell.peer)?.rounds();
                    Some((rounds(first)?, rounds(second)?))
                });
                if let [Some(here), Some(there)] = found {
                    self.pair(measure, [&first.peer, &second.peer], here, there);
                }
            }
        }
    }

    fn pair(
        &mut self,
        measure: &Measure,
        peers: [&str; 2],
        here: (&[f64], &[f64]),
        there: (&[f64], &[f64]),
    ) {
        let order = [here, there].map(|(one, other)| rank::order(one, other, measure));
        let lean = [here, there].map(|(one, other)| rank::lean(one, other, measure));
        self.pairs += 1;
        let denies = |ordered: usize| {
            let denying = 1 - ordered;
            order[ordered].is_ne() && lean[denying] != order[ordered]
        };
        if order[0] == order[1] {
            self.same += 1;
        } else if denies(0) || denies(1) {
            let word = |order: Ordering| match order {
                Ordering::Less => "before",
                Ordering::Equal => "as good as",
                Ordering::Greater => "behind",
            };
            let [first, second] = peers;
            self.against.push(format!(
                "{}, {}: {first} is {} {second}, then {} it",
                measure.table,
                measure.column,
                word(order[0]),
                word(order[1]),
            ));
        } else {
            self.near += 1;
        }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            pairs, same, near, ..
        } = self;
        writeln!(
            f,
            "{pairs} pairs of peers: {same} stand the same in both runs, {near} are a tie in one and in the same order in \
             the other, {} disagree.",
            self.against.len()
        )?;
        self.against
            .iter()
            .try_for_each(|line| writeln!(f, "- {line}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(figures: [f64; 2]) -> Results {
        let measure = Measure::less("a table", "a column", "ns");
        let mut results = Results::default();
        results.add(&measure, "a", vec![figures[0]; 3]);
        results.add(&measure, "b", vec![figures[1]; 3]);
        results
    }

    #[test]
    fn an_order_may_be_a_tie_elsewhere_but_not_the_other_way_round() {
        let compare = |one, other| {
            let it = Comparison::new(&run(one), &run(other));
            (it.same, it.near, it.against.len())
        };
        assert_eq!(compare([10.0, 20.0], [10.0, 11.0]), (1, 0, 0));
        assert_eq!(compare([10.0, 10.1], [10.1, 10.0]), (1, 0, 0));
        assert_eq!(compare([10.0, 11.0], [10.0, 10.1]), (0, 1, 0));
        assert_eq!(compare([10.0, 11.0], [10.1, 10.0]), (0, 0, 1));
        assert_eq!(compare([10.0, 20.0], [20.0, 10.0]), (0, 0, 1));
    }
}
