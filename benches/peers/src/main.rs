//! The command behind `benches/peers/run`.
//!
//! ```text
//! peers measure RESULTS [SUITE…]     measures all suites, or those named, and writes their figures
//! peers markdown RESULTS             prints them as tables
//! peers write RESULTS PAGE           puts the tables between the two marks of a page
//! peers compare RESULTS RESULTS      says where two runs disagree; fails if they do
//! ```

use std::{env, fs, io, path::Path, process::ExitCode};

use peers::{
    behaviour, compare::Comparison, http, machine, memory, pick, race::Plan, results::Results,
    tables, update,
};
use tokio::time::{Duration, Instant};

const BEGIN: &str = "<!-- peers: written by benches/peers/run --write -->";
const END: &str = "<!-- /peers -->";

fn main() -> io::Result<ExitCode> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    match *arguments {
        ["measure", results, ref suites @ ..] => measure(suites).save(Path::new(results))?,
        ["markdown", results] => {
            print!("{}", tables::markdown(&Results::load(Path::new(results))?));
        }
        ["write", results, page] => {
            let tables = tables::markdown(&Results::load(Path::new(results))?);
            write(Path::new(page), &tables)?;
        }
        ["compare", one, other] => {
            let [one, other] = [one, other].map(|path| Results::load(Path::new(path)));
            let comparison = Comparison::new(&one?, &other?);
            print!("{comparison}");
            return Ok(match comparison.against.is_empty() {
                true => ExitCode::SUCCESS,
                false => ExitCode::FAILURE,
            });
        }
        _ => {
            eprintln!(
                "measure RESULTS [SUITE…] | markdown RESULTS | write RESULTS PAGE | compare RESULTS RESULTS"
            );
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(suites: &[&str]) -> Results {
    let mut results = Results::default();
    let (begun, before) = (Instant::now(), machine::Ticks::now());
    let bursts = Plan {
        makings: 7,
        rounds: 15,
        window: 5e5,
    };
    let requests = http::Plan {
        rounds: 31,
        window: Duration::from_millis(100),
    };
    let mut suite = |name: &str, measure: &mut dyn FnMut(&mut Results)| {
        if suites.is_empty() || suites.contains(&name) {
            eprintln!("{:>4} s: {name}", begun.elapsed().as_secs());
            measure(&mut results);
        }
    };
    suite("pick", &mut |results| pick::measure(results, bursts));
    suite("update", &mut |results| update::measure(results, bursts));
    suite("http", &mut |results| http::measure(results, requests));
    suite("memory", &mut |results| memory::measure(results, 3));
    suite("behaviour", &mut |results| behaviour::measure(results, 3));
    let others = machine::Ticks::now().others_since(before);
    results.machine = machine::describe(others, begun.elapsed().as_secs());
    results
}

/// Puts the tables in place of those that stand in the page.
fn write(page: &Path, tables: &str) -> io::Result<()> {
    let text = fs::read_to_string(page)?;
    let marked = text.split_once(BEGIN).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(END)?;
        Some(format!(
            "{before}{BEGIN}\n\n{}\n\n{END}{after}",
            tables.trim()
        ))
    });
    let marked = marked.ok_or_else(|| io::Error::other("the page has no marks"))?;
    fs::write(page, marked)
}
