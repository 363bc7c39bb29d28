//! What part of the next requests each endpoint gets: the probabilities of a pick, computed instead of drawn.
//!
//! Each function is for one way in which pickers draw. No pick calls these.

use crate::member::Members;

/// One uniform draw of the available endpoints: for when none of them has weight.
pub(super) fn any_available(members: &Members) -> Vec<f64> {
    let one = |index| f64::from(u8::from(members.is_available(index)));
    in_proportion((0..members.len()).map(one).collect())
}

/// One draw in proportion to the weights.
pub(super) fn in_proportion(mut weights: Vec<f64>) -> Vec<f64> {
    let all: f64 = weights.iter().sum();
    if all > 0.0 {
        weights.iter_mut().for_each(|weight| *weight /= all);
    }
    weights
}

/// Two distinct draws in proportion to the weights: the second if it costs less, else the first.
pub(super) fn of_two(weights: &[f64], costs: &[f64]) -> Vec<f64> {
    let (all, mut order) = drawn(weights);
    let mut shares = vec![0.0; weights.len()];
    if let [only] = order[..] {
        shares[only] = 1.0;
        return shares;
    }
    // The dearest come first: an endpoint wins against all before it, whether it is drawn first or second.
    order.sort_by(|&one, &other| costs[other].total_cmp(&costs[one]));
    let (mut dearer, mut dearer_comes_first) = (0.0, 0.0);
    for alike in order.chunk_by(|&one, &other| costs[one] == costs[other]) {
        let of_alike: f64 = alike.iter().map(|&index| weights[index]).sum();
        for &index in alike {
            let weight = weights[index];
            let comes_first = weight / all * (dearer + of_alike - weight) / (all - weight);
            shares[index] = comes_first + weight * dearer_comes_first;
        }
        dearer += of_alike;
        let pairs = alike.iter().map(|&index| weights[index]);
        dearer_comes_first += pairs.map(|it| it / all / (all - it)).sum::<f64>();
    }
    shares
}

/// [`of_two`] if costs have no order, but `is_less` compares two. Its time grows with the square of the set.
pub(super) fn of_two_compared(weights: &[f64], is_less: impl Fn(usize, usize) -> bool) -> Vec<f64> {
    let (all, order) = drawn(weights);
    let mut shares = vec![0.0; weights.len()];
    if let [only] = order[..] {
        shares[only] = 1.0;
    }
    for &first in &order {
        for &second in order.iter().filter(|&&second| second != first) {
            let chosen = if is_less(second, first) {
                second
            } else {
                first
            };
            shares[chosen] += weights[first] / all * weights[second] / (all - weights[first]);
        }
    }
    shares
}

/// The cheapest of `draws` draws in proportion to `weights`, with repetitions. Endpoints without a cost are drawn but
/// never chosen. The second result is the probability that no draw has a cost.
pub(super) fn of_many(weights: &[f64], costs: &[Option<f64>], draws: i32) -> (Vec<f64>, f64) {
    let (all, order) = drawn(weights);
    let mut shares = vec![0.0; weights.len()];
    let mut order: Vec<_> = order
        .into_iter()
        .filter_map(|index| Some((costs[index]?, index)))
        .collect();
    order.sort_by(|one, other| one.0.total_cmp(&other.0));
    let mut cheaper = 0.0;
    for alike in order.chunk_by(|one, other| one.0 == other.0) {
        let of_alike: f64 = alike.iter().map(|&(_, index)| weights[index]).sum();
        let none_is = |weight: f64| (1.0 - weight / all).max(0.0).powi(draws);
        let is_least = none_is(cheaper) - none_is(cheaper + of_alike);
        for &(_, index) in alike {
            shares[index] = is_least * weights[index] / of_alike;
        }
        cheaper += of_alike;
    }
    let none = (1.0 - shares.iter().sum::<f64>()).max(0.0);
    (shares, none)
}

/// The sum of the weights, and the endpoints that have any.
fn drawn(weights: &[f64]) -> (f64, Vec<usize>) {
    let drawn = (0..weights.len()).filter(|&index| weights[index] > 0.0);
    (weights.iter().sum(), drawn.collect())
}
