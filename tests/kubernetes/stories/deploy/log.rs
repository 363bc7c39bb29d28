//! Reads the output of `http_client`.

use std::net::IpAddr;

/// How many percentage points a pod's share of a second's answers may differ from the fair share.
const UNEVEN: f64 = 2.0;

/// Whether the latest second's answers came from these pods, in equal shares.
pub(super) fn is_even(log: &str, pods: &[IpAddr]) -> bool {
    let Some((_, shares)) = latest(log).and_then(|line| line.split_once(" in flight:")) else {
        return false;
    };
    let words: Vec<_> = shares.split_whitespace().collect();
    let shares = words.chunks(3).map(|share| match share {
        [pod, share, "%"] => Some((pod.parse().ok()?, share.parse().ok()?)),
        // "and 3 more"
        _ => None,
    });
    let Some(mut shares) = shares.collect::<Option<Vec<(IpAddr, f64)>>>() else {
        return false;
    };
    shares.sort_unstable_by_key(|(pod, _)| *pod);
    let fair = 100.0 / pods.len() as f64;
    let is_fair = |share: &f64| (share - fair).abs() <= UNEVEN;
    shares.iter().map(|(pod, _)| pod).eq(pods) && shares.iter().all(|(_, share)| is_fair(share))
}

/// Asserts that no request has failed, and that it was started only once.
pub(super) fn assert_none_failed(log: &str) {
    assert_eq!(log.matches("target http://").count(), 1, "{log}");
    assert!(!log.contains("FAILED"), "{log}");
    let latest = latest(log).unwrap_or_default();
    assert!(latest.contains(" 0 failed so far"), "{latest}");
}

/// Asserts that it was stopped, and reported on its requests without failures.
pub(super) fn assert_ended_well(log: &str) {
    assert_none_failed(log);
    assert!(log.contains("interrupted"), "{log}");
    let last = log.lines().next_back().unwrap_or_default();
    let sent = last.strip_prefix("sent ").and_then(|it| it.split_once(' '));
    let (sent, _) = sent.unwrap_or_else(|| panic!("no report: {last:?}"));
    assert_ne!(sent, "0");
    assert_eq!(last, format!("sent {sent} ok {sent} failed 0"));
}

/// The pods that answered, by hostname, each with its number of answers, from the tables at the end.
pub(super) fn answers(log: &str) -> Vec<(&str, u64)> {
    let answers = log.lines().filter_map(|line| {
        let (pod, columns) = line.split_once(' ')?;
        let (_, answers) = columns.split_once(" % ")?;
        let answers = answers.split_whitespace().next()?.parse().ok()?;
        Some((pod, answers)).filter(|_| pod.starts_with("web-") && answers > 0)
    });
    answers.collect()
}

/// The line for the latest second.
fn latest(log: &str) -> Option<&str> {
    // The last line may not be finished yet.
    let (whole, _) = log.rsplit_once('\n')?;
    whole.lines().rfind(|line| line.contains(" answers/s, "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(shares: &str, failed: usize) -> String {
        format!("  1.0 s  client   100 answers/s, {failed} failed so far, 0 in flight:  {shares}\n")
    }

    #[test]
    fn is_even_needs_equal_shares_of_exactly_these_pods() {
        let pods = ["10.0.0.1", "10.0.0.2"].map(|pod| pod.parse().expect("an address"));
        assert!(is_even(&line("10.0.0.2 51 %  10.0.0.1 49 %", 0), &pods));
        for other in [
            "10.0.0.1 100 %",
            "10.0.0.1 60 %  10.0.0.2 40 %",
            "10.0.0.1 50 %  10.0.0.3 50 %",
            "10.0.0.1 49 %  10.0.0.2 50 %  10.0.0.3 1 %",
            "10.0.0.1 50 %  10.0.0.2 50 %  and 1 more",
        ] {
            assert!(!is_even(&line(other, 0), &pods), "{other}");
        }
    }

    #[test]
    fn answers_lists_pods_that_answered() {
        let table = "web-0 10.0.0.1:80  available  0   0 %       0        -\n\
                     web-1 10.0.0.2:80  available  0 100 %     333   0.9 ms\n";
        assert_eq!(answers(table), [("web-1", 333)]);
    }

    #[test]
    #[should_panic(expected = "2 failed so far")]
    fn assert_none_failed_panics_on_a_failure() {
        assert_none_failed(&format!("target http://web/\n{}", line("", 2)));
    }
}
