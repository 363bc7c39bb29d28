//! The compiler's messages for the most common mistakes (`compile_fail/*.rs`), word for word (`*.stderr`): the first
//! lines that a user reads, and the notes.
//!
//! Messages change with each release of the compiler, so with another release nothing is compared. To write them anew:
//! `TOWER_HEADLESS_OVERWRITE=1 cargo test --all-features --test compile_fail`.
//!
//! The programs are compiled against this test's own dependencies. (`trybuild` would check all dependencies once more.)

use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

mod support;

use support::example;

const COMPILER: &str = "rustc 1.95.";

const MANIFEST: &str = env!("CARGO_MANIFEST_DIR");

/// The folder for the compiler's output.
const OUTPUT: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/compile_fail");

/// The crates that the programs use.
const CRATES: [&str; 3] = ["http", "tower", "tower_headless"];

#[test]
fn common_mistakes_get_helpful_compiler_messages() {
    let version = rustc()
        .arg("--version")
        .output()
        .expect("a compiler")
        .stdout;
    if !version.starts_with(COMPILER.as_bytes()) {
        eprintln!("not compared: this is another compiler than {COMPILER}");
        return;
    }
    let crates = crates();
    let folder = Path::new(MANIFEST).join("tests/compile_fail");
    let entries = fs::read_dir(folder).expect("the programs");
    let mut programs: Vec<_> = entries.map(|entry| entry.expect("a file").path()).collect();
    programs.retain(|path| path.extension() == Some(OsStr::new("rs")));
    programs.sort();
    assert!(!programs.is_empty());
    let is_other = |program: &PathBuf| {
        let told = gist(&compile(program, &crates), program);
        let expected = program.with_extension("stderr");
        if env::var_os("TOWER_HEADLESS_OVERWRITE").is_some() {
            fs::write(&expected, &told).expect("it is written");
        }
        let known = fs::read_to_string(expected).unwrap_or_default();
        if known != told {
            eprintln!("{}:\n{told}\nwas:\n{known}", program.display());
        }
        known != told
    };
    let others = programs.into_iter().filter(is_other).count();
    assert_eq!(others, 0, "mistakes are told in other words than before");
}

fn rustc() -> Command {
    Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
}

/// The files of the crates that this test was built with.
fn crates() -> Vec<(&'static str, PathBuf)> {
    let mut build = example::cargo("build");
    build.args(["--test", "compile_fail", "--message-format", "json"]);
    let told = build.output().expect("cargo runs").stdout;
    let told = String::from_utf8(told).expect("JSON is text");
    let artifacts = told.lines().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let name = message["target"]["name"].as_str()?.to_owned();
        let files = message["filenames"].as_array()?.iter();
        let mut files = files.filter_map(|file| file.as_str());
        Some((name, files.find(|file| file.ends_with(".rlib"))?.into()))
    });
    let mut artifacts: Vec<(String, PathBuf)> = artifacts.collect();
    let find = |name: &'static str| {
        let at = artifacts.iter().rposition(|artifact| artifact.0 == name);
        (name, artifacts.swap_remove(at.expect(name)).1)
    };
    CRATES.map(find).into()
}

fn compile(program: &Path, crates: &[(&str, PathBuf)]) -> String {
    let mut rustc = rustc();
    rustc
        .args(["--edition", "2024", "--crate-type", "bin"])
        .args(["--emit", "metadata", "-o", OUTPUT, "--color", "never"])
        .current_dir(MANIFEST);
    for (name, path) in crates {
        let dependencies = path.parent().expect("a folder").display();
        rustc.arg("-L").arg(format!("dependency={dependencies}"));
        rustc
            .arg("--extern")
            .arg(format!("{name}={}", path.display()));
    }
    let program = program.strip_prefix(MANIFEST).expect("it is ours");
    let output = rustc.arg(program).output().expect("a compiler");
    assert!(!output.status.success(), "{} compiles", program.display());
    String::from_utf8(output.stderr).expect("text")
}

/// The part of the message about the program itself, and the notes. It depends neither on line numbers of other files
/// nor on features.
fn gist(told: &str, program: &Path) -> String {
    let name = program.file_name().expect("a name").to_string_lossy();
    let mut is_own = false;
    let mut gist = String::new();
    for line in told.lines() {
        let text = line.trim_start();
        let is_place = text.starts_with("-->") || text.starts_with(":::");
        let is_note = text.starts_with("= note:") || text.starts_with("= help:");
        if is_place {
            is_own = line.contains(&*name);
        }
        if text.is_empty() || text.starts_with("note:") || text.starts_with("help:") {
            is_own = false;
        }
        let is_list = text.contains("the following other types");
        is_own &= !is_list;
        let is_of_rustc = is_list || text.contains(".txt'") || text.contains("`--verbose`");
        let is_error = line.starts_with("error") && !line.starts_with("error: aborting");
        if (is_error || is_own || is_note) && !is_place && !is_of_rustc {
            gist += margin(line).trim_end();
            gist.push('\n');
        }
    }
    gist
}

/// A line with a margin of fixed width. rustc makes it as wide as the largest line number of any file in the message.
fn margin(line: &str) -> String {
    let end = line.find(['|', '=']).unwrap_or_default();
    let (margin, text) = line.split_at(end);
    let is_margin = |margin: &str| margin.chars().all(|c| c == ' ' || c.is_ascii_digit());
    match is_margin(margin) && !margin.is_empty() {
        true => format!("{:>4} {text}", margin.trim()),
        false => line.to_owned(),
    }
}
