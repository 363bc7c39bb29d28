//! What it was measured on, and what else ran there meanwhile.

use std::{fs, process::Command, thread};

/// The ticks of all processors: how many there were, and how many went into which programs.
#[derive(Clone, Copy)]
pub struct Ticks {
    all: f64,
    idle: f64,
    ours: f64,
}

impl Ticks {
    /// Since the system was started.
    pub fn now() -> Self {
        let text = read("/proc/stat");
        let fields = numbers(text.lines().next().unwrap_or_default());
        // user, nice, system, idle, iowait, irq, softirq, steal; guests are in user.
        let all = fields.iter().take(8).sum();
        let idle = fields.iter().skip(3).take(2).sum();
        let text = read("/proc/self/stat");
        // After the name, which may have spaces: utime, stime, and those of children that have ended.
        let fields = text.rsplit_once(") ").map_or("", |(_, rest)| rest);
        let ours = numbers(fields).iter().skip(10).take(4).sum();
        Self { all, idle, ours }
    }

    /// The part of the processors that other programs took since then, in percent.
    pub fn others_since(self, before: Self) -> f64 {
        let all = self.all - before.all;
        let busy = all - (self.idle - before.idle) - (self.ours - before.ours);
        (100.0 * busy / all).max(0.0)
    }
}

/// All numbers of a line, without its words.
fn numbers(line: &str) -> Vec<f64> {
    let words = line.split_whitespace();
    words.filter_map(|word| word.parse().ok()).collect()
}

/// A sentence.
pub fn describe(others: f64, seconds: u64) -> String {
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let cpu = read("/proc/cpuinfo")
        .lines()
        .find_map(|line| {
            Some(
                line.strip_prefix("model name")?
                    .split_once(": ")?
                    .1
                    .to_owned(),
            )
        })
        .unwrap_or_else(|| "a processor without a name".to_owned());
    let kernel = read("/proc/sys/kernel/osrelease");
    let rustc = Command::new("rustc").arg("--version").output();
    let rustc = rustc.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    let rustc = rustc.unwrap_or_else(|_| "an unknown rustc".to_owned());
    format!(
        "Measured in {seconds} s on {cores} cores ({cpu}), Linux {}, {rustc}. Other programs took {others:.0} % of the cores \
         meanwhile.",
        kernel.trim()
    )
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}
