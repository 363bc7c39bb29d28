//! Checks that README, the guide and the pages beside them are short, linked, and in plain words. rustdoc checks their
//! examples and the items that they name (`src/guide.rs`).

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The names of the pages in `docs/`, without the index.
fn pages() -> Vec<String> {
    let entries = fs::read_dir(root().join("docs")).expect("docs/");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    let names = names.map(|name| name.into_string().expect("UTF-8"));
    names
        .filter(|name| name.ends_with(".md") && name != "README.md")
        .collect()
}

/// The paths of all pages.
fn documents() -> Vec<String> {
    let pages = pages().into_iter().map(|page| format!("docs/{page}"));
    let others = [
        "README.md",
        "docs/README.md",
        "ARCHITECTURE.md",
        "BENCHMARKS.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "RELEASING.md",
        "SECURITY.md",
        "tests/faults.md",
    ];
    pages.chain(others.map(str::to_owned)).collect()
}

/// The lines outside of code blocks, and those inside of Rust code blocks.
fn lines(text: &str) -> (Vec<&str>, Vec<&str>) {
    let (mut prose, mut rust, mut code) = (Vec::new(), Vec::new(), None);
    for line in text.lines() {
        match (line.strip_prefix("```"), code) {
            (Some(language), None) => code = Some(language),
            (Some(_), Some(_)) => code = None,
            (None, None) => prose.push(line),
            (None, Some(language)) if language.starts_with("rust") => rust.push(line),
            (None, Some(_)) => {}
        }
    }
    (prose, rust)
}

/// Paragraphs and list items, each in one line; no headings, tables, or link definitions.
fn paragraphs(text: &str) -> Vec<String> {
    let mut found: Vec<String> = vec![String::new()];
    for line in lines(text).0 {
        let line = line.trim();
        let is_definition = line.starts_with('[') && line.contains("]: ");
        if line.is_empty() || line.starts_with(['#', '|', '!', '<']) || is_definition {
            found.push(String::new());
            continue;
        }
        let number = line.trim_start_matches(|c: char| c.is_ascii_digit());
        let item = line.strip_prefix("- ").or(number.strip_prefix(". "));
        if item.is_some() {
            found.push(String::new());
        }
        let last = found.last_mut().expect("there is one");
        *last = format!("{last} {}", item.unwrap_or(line)).trim().to_owned();
    }
    found.retain(|paragraph| !paragraph.is_empty());
    found
}

/// The lengths of a page's sentences in words, sorted.
fn sentences(text: &str) -> Vec<usize> {
    let paragraphs = paragraphs(text);
    let ends = [". ", "? ", "! ", ".** ", "?** "];
    let mut lengths: Vec<_> = paragraphs
        .into_iter()
        .map(|paragraph| {
            ends.iter()
                .fold(paragraph, |text, end| text.replace(end, "\n"))
        })
        .flat_map(|text| {
            text.lines()
                .map(|it| it.split_whitespace().count())
                .collect::<Vec<_>>()
        })
        .collect();
    lengths.sort_unstable();
    lengths
}

/// A heading's anchor, as GitHub and rustdoc make it.
fn anchor(heading: &str) -> String {
    let heading = heading
        .trim_matches(['#', ' '])
        .to_lowercase()
        .replace(' ', "-");
    let is_kept = |&it: &char| it.is_alphanumeric() || it == '-' || it == '_';
    heading.chars().filter(is_kept).collect()
}

fn headings(text: &str) -> HashSet<String> {
    let prose = lines(text).0.into_iter();
    prose
        .filter(|line| line.starts_with('#'))
        .map(anchor)
        .collect()
}

/// The targets of links in lines of Markdown: `[text](here)` and `[label]: here`.
fn links<'a>(lines: &[&'a str]) -> Vec<&'a str> {
    let inline = lines
        .iter()
        .flat_map(|line| line.split("](").skip(1))
        .filter_map(|rest| rest.split(')').next());
    let definitions = lines
        .iter()
        .filter(|line| line.starts_with('['))
        .filter_map(|line| Some(line.split_once("]: ")?.1));
    let all = inline.chain(definitions);
    all.filter(|link| !link.contains("://")).collect()
}

#[test]
fn the_readme_is_read_in_five_minutes() {
    let readme = read("README.md");
    let (lines, words) = (readme.lines().count(), readme.split_whitespace().count());
    assert!(
        lines <= 150 && words <= 1000,
        "{lines} lines, {words} words"
    );
}

/// A release tells what a user gets, and not how it came to be.
#[test]
fn the_changelog_tells_this_version_in_a_page() {
    let changelog = read("CHANGELOG.md");
    let heading = format!("\n## {} - ", env!("CARGO_PKG_VERSION"));
    let (_, release) = changelog.split_once(&heading).expect("this version");
    let release = release.split("\n## ").next().unwrap_or_default();
    let lines = release.lines().count();
    assert!((10..=120).contains(&lines), "{lines} lines");
}

/// What the registry and docs.rs show. The owner adds `repository`, as RELEASING.md says.
#[test]
fn the_package_is_described() {
    let package = read("Cargo.toml");
    for field in [
        "categories",
        "description",
        "documentation",
        "keywords",
        "license",
        "readme",
        "rust-version",
    ] {
        assert!(package.contains(&format!("\n{field} = ")), "no {field}");
    }
    for file in ["SECURITY.md", "RELEASING.md"] {
        assert!(
            read("CONTRIBUTING.md").contains(file),
            "CONTRIBUTING.md doesn't name {file}"
        );
    }
}

#[test]
fn every_page_is_in_the_index_and_in_the_documentation() {
    let (index, guide, labels) = (
        read("docs/README.md"),
        read("src/guide.rs"),
        read("src/guide/links.md"),
    );
    let (targets, front) = (links(&lines(&index).0), read("src/lib.rs"));
    assert!(!pages().is_empty());
    for page in pages() {
        let (label, module) = (
            page.trim_end_matches(".md"),
            page.trim_end_matches(".md").replace('-', "_"),
        );
        assert!(targets.contains(&&*page), "the index has no {page}");
        assert!(index.contains(&format!("][{label}]")), "it links no {page}");
        let entry = format!("    {module}: \"docs/{page}\"\n");
        assert!(guide.contains(&entry), "the guide has no {module}");
        let definition = format!("[{label}]: {module}\n");
        assert!(labels.contains(&definition), "no label for {page}");
        let link = format!("(guide::{module})");
        assert!(front.contains(&link), "the front page has no {page}");
    }
}

#[test]
fn links_between_pages_lead_to_files_and_headings() {
    for document in documents() {
        let text = read(&document);
        for link in links(&lines(&text).0) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let path: PathBuf = root().join(&document);
            let path = match file {
                "" => path,
                _ => path.parent().expect("a folder").join(file),
            };
            assert!(path.exists(), "{document}: no {link}");
            let is_found = heading.is_empty()
                || headings(&fs::read_to_string(&path).expect("text")).contains(heading);
            assert!(is_found, "{document}: no heading {link}");
        }
        for label in text
            .split("][")
            .skip(1)
            .filter_map(|it| it.split(']').next())
        {
            let is_defined = text.contains(&format!("\n[{label}]: "));
            assert!(is_defined, "{document}: [{label}] is defined nowhere");
        }
    }
}

/// The texts of all Rust files under `folder`.
fn sources(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let texts = paths.flat_map(|path| match path.is_dir() {
        true => sources(&path),
        false if path.extension().is_some_and(|it| it == "rs") => {
            vec![fs::read_to_string(path).expect("text")]
        }
        false => Vec::new(),
    });
    texts.collect()
}

/// The doc comments of all Rust files under `folder`, as Markdown. An empty line ends each comment.
fn comments(folder: &str) -> String {
    let texts = sources(&root().join(folder));
    let lines = texts.iter().flat_map(|text| text.lines());
    let lines = lines.map(|line| {
        let line = line.trim_start();
        let comment = line.strip_prefix("//!").or(line.strip_prefix("///"));
        format!("{}\n", comment.unwrap_or_default().trim_start())
    });
    lines.collect()
}

/// rustdoc checks the items that links name, but not headings. Headings of all items are taken together.
#[test]
fn links_lead_to_headings_of_the_documentation() {
    let comments = comments("src");
    let comments: Vec<_> = comments.lines().collect();
    let mut known: HashSet<_> = documents()
        .iter()
        .flat_map(|page| headings(&read(page)))
        .collect();
    known.extend(
        comments
            .iter()
            .filter(|line| line.starts_with('#'))
            .map(|line| anchor(line)),
    );
    let found = links(&comments);
    let found: Vec<_> = found
        .iter()
        .filter_map(|link| Some(link.split_once('#')?.1))
        .collect();
    assert!(!found.is_empty());
    for heading in found {
        assert!(known.contains(heading), "no heading: #{heading}");
    }
}

/// Readers of the files see lines that rustdoc hides.
#[test]
fn examples_hide_nothing() {
    for document in documents() {
        let text = read(&document);
        let hidden = lines(&text)
            .1
            .into_iter()
            .find(|line| *line == "#" || line.starts_with("# "));
        assert_eq!(hidden, None, "{document}");
    }
}

/// The functions that have an attribute of a test, such as `#[tokio::test]`.
fn test_names(code: &str) -> Vec<String> {
    let (mut names, mut is_test) = (Vec::new(), false);
    for line in code.lines().map(str::trim) {
        let function = line.trim_start_matches("async ").strip_prefix("fn ");
        match function.and_then(|it| it.split_once('(')) {
            Some((name, _)) if is_test => names.push(name.to_owned()),
            _ if line.starts_with("#[") => is_test |= line.contains("test"),
            _ => {}
        }
        is_test &= line.starts_with("#[");
    }
    names
}

#[test]
fn each_fault_has_tests_that_exist() {
    let text = read("tests/faults.md");
    let rows = text.lines().filter(|line| line.starts_with("| "));
    let is_head = |line: &str| line.starts_with("| fault |") || line.starts_with("| --- |");
    let rows: Vec<_> = rows.filter(|line| !is_head(line)).collect();
    assert!(rows.len() >= 44, "{} faults", rows.len());
    let known = ["src", "tests"].map(|folder| sources(&root().join(folder)));
    let known = known.iter().flatten().flat_map(|code| test_names(code));
    let known: HashSet<_> = known.collect();
    for row in rows {
        let tests = row.trim_end_matches(" |").rsplit(" | ").next();
        let tests: Vec<_> = tests.expect("a last column").split(", ").collect();
        for test in tests {
            let name = test.trim_matches('`');
            assert_eq!(test, format!("`{name}`"), "{row}");
            assert!(known.contains(name), "no test {name}: {row}");
        }
    }
}

/// Phrases that have to be decoded.
const DROPPED: [&str; 7] = [
    "'s word ",
    "be it that",
    "so wanted",
    "in vain",
    "has the word",
    "is to be ",
    "are to be ",
];

/// All texts that explain, each with its name: the pages, and the doc comments of all code.
fn explanations() -> Vec<(String, String)> {
    let pages = documents().into_iter().map(|page| {
        let text = read(&page);
        (page, text)
    });
    let folders = ["src", "tests", "examples", "benches"];
    let code = folders.map(|folder| (folder.to_owned(), comments(folder)));
    pages.chain(code).collect()
}

#[test]
fn words_are_plain() {
    for (name, text) in explanations() {
        for paragraph in paragraphs(&text) {
            let lower = paragraph.to_lowercase();
            for phrase in DROPPED {
                assert!(!lower.contains(phrase), "{name}: {phrase}: {paragraph}");
            }
            let refers = ["The same ", "The opposite "]
                .iter()
                .any(|it| paragraph.starts_with(it));
            assert!(!refers, "{name}: {paragraph}");
        }
    }
}

#[test]
fn sentences_are_short() {
    for (name, text) in explanations() {
        let lengths = sentences(&text);
        // A page of tables has none.
        let median = lengths.get(lengths.len() / 2).copied().unwrap_or_default();
        assert!(
            median <= 20,
            "{name}: the median sentence has {median} words"
        );
    }
}

#[test]
fn the_parser_sees_what_it_should() {
    let text = "# A b\n\nOne two. Three\nfour!\n- Five six. Seven\n\n| x. y |\n```rust\n# hidden\n```\n[a]: b.md\n";
    assert_eq!(
        paragraphs(text),
        ["One two. Three four!", "Five six. Seven"]
    );
    assert_eq!(sentences(text), [1, 2, 2, 2]);
    assert_eq!(lines(text).1, ["# hidden"]);
    assert_eq!(
        links(&["see [x](y.md#z), [w](http://v)", "[a]: b.md"]),
        ["y.md#z", "b.md"]
    );
    assert_eq!(anchor("## What `x` is: a-b"), "what-x-is-a-b");
    let code = "#[test]\nfn a() {}\n#[tokio::test(x)]\n#[ignore]\nasync fn b() {}\nfn c() {}\n";
    assert_eq!(test_names(code), ["a", "b"]);
}
