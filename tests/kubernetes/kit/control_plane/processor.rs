//! A process's processor time.

use std::{fs, time::Duration};

/// The processor time that a process has used, of all its threads (proc(5), `stat`: utime and stime).
pub(crate) fn time_of(process: u32) -> Duration {
    // Linux counts in hundredths, for every architecture's user space (USER_HZ).
    const TICK: Duration = Duration::from_millis(10);
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).expect("it runs");
    // The name, in parentheses, may contain spaces. The state, right after it, is field 3.
    let (_, fields) = stat.rsplit_once(')').expect("a name in parentheses");
    let fields = fields.split_whitespace().skip(14 - 3).take(2);
    let ticks: u32 = fields.filter_map(|field| field.parse::<u32>().ok()).sum();
    TICK * ticks
}
