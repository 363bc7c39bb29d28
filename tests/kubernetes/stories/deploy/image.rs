//! The steps of the image's Dockerfile, done here without Docker.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{process::Command, time::timeout};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Longer than the build of all dependencies takes.
const PATIENCE: Duration = Duration::from_secs(1_800);

/// Builds what the Dockerfile builds, from only the files that it copies: without `--release` and network, with this
/// machine's Rust. The README's block must name that Dockerfile.
pub(super) async fn builds(block: &str) {
    assert_one_tag(block);
    let dockerfile = Dockerfile::read();
    let folder = Path::new(ROOT).join("target/kubernetes/image");
    let context = folder.join("build");
    // Files that have since been deleted must not help.
    let _ = fs::remove_dir_all(&context);
    fs::create_dir_all(&context).expect("target can be written to");
    for source in &dockerfile.sources {
        assert_not_ignored(source);
        let copied = copy(&Path::new(ROOT).join(source), &context.join(source));
        copied.unwrap_or_else(|error| panic!("COPY {source}: {error}"));
    }
    let target = folder.join("target");
    build(&dockerfile.build, &context, &target).await;
    for program in &dockerfile.programs {
        help(&target.join("debug").join(program)).await;
    }
}

/// Asserts that the image has the same name and tag everywhere, because our node ignores tags.
fn assert_one_tag(block: &str) {
    let build = block.lines().next().unwrap_or_default();
    let tag = build.strip_prefix("docker build --file deploy/Dockerfile --tag ");
    let tag = tag.and_then(|tag| tag.strip_suffix(" ."));
    let tag = tag.unwrap_or_else(|| panic!("{build:?} doesn't build deploy/Dockerfile"));
    let mut found = 0;
    let files =
        ["deploy", "deploy/observe"].map(|folder| fs::read_dir(Path::new(ROOT).join(folder)));
    for entry in files.into_iter().flat_map(|files| files.expect("deploy/")) {
        let file = entry.expect("deploy/").path();
        if file.is_dir() {
            continue;
        }
        let text = fs::read_to_string(&file).expect("a text");
        for (at, _) in text.match_indices("tower-headless:") {
            let here = text[at..].split(char::is_whitespace).next();
            assert_eq!(here, Some(tag), "{}", file.display());
            found += 1;
        }
    }
    assert!(found > 0, "nothing of it is used");
}

/// What the test needs of the Dockerfile.
struct Dockerfile {
    /// Files and folders of the repository.
    sources: Vec<String>,
    /// Cargo's arguments.
    build: Vec<String>,
    /// What is copied from the first stage, below Cargo's folder of the profile.
    programs: Vec<PathBuf>,
}

impl Dockerfile {
    fn read() -> Self {
        let file = Path::new(ROOT).join("deploy/Dockerfile");
        let text = fs::read_to_string(file).expect("deploy/Dockerfile");
        let mut dockerfile = Self {
            sources: Vec::new(),
            build: Vec::new(),
            programs: Vec::new(),
        };
        for line in text.replace("\\\n", " ").lines() {
            let words: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
            dockerfile.instruction(&words);
        }
        assert!(!dockerfile.build.is_empty(), "no RUN cargo");
        assert!(!dockerfile.programs.is_empty(), "no COPY --from=build");
        dockerfile
    }

    fn instruction(&mut self, words: &[String]) {
        let plain: Vec<_> = words.iter().map(String::as_str).collect();
        match &plain[..] {
            ["COPY", "--from=build", programs @ .., _] => {
                let below = |program: &&str| {
                    let below = Path::new(program).strip_prefix("/build/target/release");
                    below.expect("what the build makes").to_owned()
                };
                self.programs.extend(programs.iter().map(below));
            }
            ["COPY", _, .., "./"] => self.sources.extend(words[1..words.len() - 1].to_vec()),
            ["COPY", source, target] if source == target => self.sources.push(words[1].clone()),
            ["RUN", "cargo", ..] if self.build.is_empty() => self.build = words[2..].to_vec(),
            ["COPY" | "RUN", ..] => panic!("the test can't tell what this does: {plain:?}"),
            _ => {}
        }
    }
}

fn assert_not_ignored(source: &str) {
    let file = Path::new(ROOT).join(".dockerignore");
    let ignored = fs::read_to_string(file).expect(".dockerignore");
    let is_ignored = ignored.lines().any(|pattern| pattern.trim() == source);
    assert!(!is_ignored, "COPY {source}: .dockerignore has it");
}

/// Copies files along with their times, by which Cargo knows what has changed.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    if from.is_dir() {
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(from)? {
            let name = entry?.file_name();
            copy(&from.join(&name), &to.join(&name))?;
        }
        return Ok(());
    }
    fs::copy(from, to)?;
    let modified = fs::metadata(from)?.modified()?;
    fs::File::options()
        .write(true)
        .open(to)?
        .set_modified(modified)
}

async fn build(arguments: &[String], context: &Path, target: &Path) {
    let arguments = arguments.iter().filter(|it| *it != "--release");
    // `nice`, because other stories run at the same time.
    let cargo = Command::new("nice")
        .args(["-n", "19", "cargo"])
        .args(arguments)
        .args(["--offline", "--target-dir"])
        .arg(target)
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        .current_dir(context)
        .kill_on_drop(true)
        .output();
    let built = timeout(PATIENCE, cargo).await;
    let built = built.unwrap_or_else(|_| panic!("no end of the build after {PATIENCE:?}"));
    let built = built.expect("cargo is there");
    let errors = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "{errors}");
}

async fn help(program: &Path) {
    let output = Command::new(program).arg("--help").output().await;
    let output = output.unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    assert!(output.status.success(), "{}: {output:?}", program.display());
}
