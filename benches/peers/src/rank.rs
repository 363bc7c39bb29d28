//! Who is before whom. The figures of two peers are compared round by round, for both ran in each round: what else the
//! machine did meanwhile is in both.

use std::cmp::Ordering;

use crate::results::{Better, Cell, Measure, Results};

/// Of so many rounds of a hundred the order must be the same, or it is a tie.
const SAME_ORDER: usize = 80;

pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.into_iter().collect();
    values.sort_unstable_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => values[len / 2],
        len => (values[len / 2 - 1] + values[len / 2]) / 2.0,
    }
}

/// By how much the first is worse in each round, as it is and as a part of the larger figure.
fn differences(one: &[f64], other: &[f64], better: Better) -> Vec<(f64, f64)> {
    let sign = match better {
        Better::Less => 1.0,
        Better::More => -1.0,
    };
    let difference = |(one, other): (&f64, &f64)| {
        let difference = sign * (one - other);
        (
            difference,
            difference / one.max(*other).max(f64::MIN_POSITIVE),
        )
    };
    one.iter().zip(other).map(difference).collect()
}

/// `Less` if the first is better, `Equal` if it is a tie.
pub fn order(one: &[f64], other: &[f64], measure: &Measure) -> Ordering {
    let differences = differences(one, other, measure.better);
    let typical = median(differences.iter().map(|it| it.0));
    let part = median(differences.iter().map(|it| it.1));
    if typical.abs() <= measure.slack || part.abs() <= measure.apart {
        return Ordering::Equal;
    }
    let agree = differences.iter().filter(|it| it.0 * typical > 0.0);
    if agree.count() * 100 < differences.len() * SAME_ORDER {
        return Ordering::Equal;
    }
    typical.total_cmp(&0.0)
}

/// Which is better by the median alone, however little.
pub fn lean(one: &[f64], other: &[f64], measure: &Measure) -> Ordering {
    let differences = differences(one, other, measure.better);
    let typical = median(differences.iter().map(|it| it.0));
    typical.partial_cmp(&0.0).unwrap_or(Ordering::Equal)
}

/// One more than the number of peers that are better. Ties share a rank.
pub fn rank(results: &Results, cell: &Cell) -> Option<usize> {
    let rounds = cell.rounds()?;
    let others = results.column(&cell.measure).filter_map(Cell::rounds);
    let better = others.filter(|other| order(other, rounds, &cell.measure).is_lt());
    Some(better.count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_that_are_near_or_change_places_are_ties() {
        let measure = Measure::less("", "", "");
        let more = Measure::more("", "", "");
        let base = [10.0; 5];
        assert_eq!(order(&base, &[12.0; 5], &measure), Ordering::Less);
        assert_eq!(order(&[12.0; 5], &base, &measure), Ordering::Greater);
        assert_eq!(order(&base, &[12.0; 5], &more), Ordering::Greater);
        assert_eq!(order(&base, &[10.4; 5], &measure), Ordering::Equal);
        assert_eq!(
            order(&base, &[12.0; 5], &measure.clone().slack(2.0)),
            Ordering::Equal
        );
        let changing = [12.0, 12.0, 12.0, 8.0, 8.0];
        assert_eq!(order(&base, &changing, &measure), Ordering::Equal);
        assert_eq!(lean(&base, &changing, &measure), Ordering::Less);
        assert_eq!(order(&[0.0; 5], &[0.0; 5], &measure), Ordering::Equal);
    }

    #[test]
    fn ties_share_a_rank() {
        let measure = Measure::less("a table", "a column", "ns");
        let mut results = Results::default();
        for (peer, figure) in [("a", 20.0), ("b", 10.0), ("c", 10.1), ("d", 30.0)] {
            results.add(&measure, peer, vec![figure; 3]);
        }
        results.say(&measure, "e", "none");
        let ranks: Vec<_> = results
            .cells
            .iter()
            .map(|cell| rank(&results, cell))
            .collect();
        assert_eq!(ranks, [Some(3), Some(1), Some(1), Some(4), None]);
    }
}
