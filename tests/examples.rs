//! The examples' command lines: `--help`, and unknown options.

mod support;

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use support::example;

/// The most lines of `http_client --help`: a screen, with room for the prompt.
const SCREEN: usize = 23;
/// The most lines of the other examples' `--help`.
const SHORT: usize = 15;

/// All examples, as cargo finds them: files, and folders with a main.rs.
fn names() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let entries = fs::read_dir(folder).expect("the examples");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let programs = paths.filter(|path| path.extension().is_some() || path.join("main.rs").exists());
    let stem = |path: &Path| {
        path.file_stem()
            .and_then(|it| it.to_str())
            .map(str::to_owned)
    };
    let names: Vec<_> = programs.filter_map(|path| stem(&path)).collect();
    assert!(names.len() > 10, "{names:?}");
    names
}

fn run(program: &Path, argument: &str) -> (Output, String, String) {
    let output = Command::new(program).arg(argument).output();
    let output = output.expect("it runs");
    let [out, err] =
        [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it).into_owned());
    (output, out, err)
}

#[test]
fn each_example_s_help_says_what_it_shows_and_how_to_run_it() {
    for name in names() {
        let program = example::built(&name);
        let (output, help, errors) = run(&program, "-h");
        assert_eq!(output.status.code(), Some(0), "{name}: {errors}");
        assert_eq!(errors, "", "{name}");
        let (about, usage) = help.split_once("\n\nUsage: ").expect("a usage");
        assert!(about.len() > 60, "{name} tells what it shows: {about:?}");
        let command = usage.lines().next().unwrap_or_default();
        assert!(command.starts_with("cargo run "), "{name}: {command}");
        let mut words = command.split(' ');
        assert!(words.any(|word| word == "--example"), "{name}: {command}");
        assert_eq!(words.next(), Some(&*name), "{command}");
        assert!(usage.contains("-h, --help"), "{name}: {help}");
        let widest = help.lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(80), "{name} is {widest:?} wide:\n{help}");
        let height = if name == "http_client" { SCREEN } else { SHORT };
        assert!(help.lines().count() <= height, "{name}:\n{help}");
        assert_eq!(run(&program, "--help").1, help, "{name}");
    }
}

#[test]
fn no_example_takes_an_option_that_it_doesnt_know() {
    for name in names() {
        let (output, out, errors) = run(&example::built(&name), "--surprise");
        assert_eq!(output.status.code(), Some(2), "{name}: {errors}");
        assert!(errors.starts_with("error: "), "{name}: {errors}");
        assert!(errors.contains("'--surprise'"), "{name}: {errors}");
        assert_eq!(out, "", "{name}");
    }
}
