//! The README's blocks of commands.

use std::fs;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/README.md");

/// The text above the block that can't be run here.
const OUTSIDE: &str = "It is the only block that the test suite does not run";

/// The only programs that this block uses.
const OUTSIDE_PROGRAMS: [&str; 3] = ["docker", "kind", "microk8s"];

pub(super) struct Readme {
    pub(super) sections: Vec<Section>,
}

/// A headline with commands below it.
pub(super) struct Section {
    pub(super) title: String,
    pub(super) blocks: Vec<Block>,
}

/// Commands, and what they print.
#[derive(Default)]
pub(super) struct Block {
    pub(super) commands: String,
    expected: String,
    /// It needs programs that aren't here.
    pub(super) is_outside: bool,
}

impl Readme {
    pub(super) fn read() -> Self {
        let text = fs::read_to_string(FILE).expect("deploy/README.md");
        let mut parts = text.split("\n## ");
        let begin = parts.next().unwrap_or_default();
        assert!(!begin.contains("```"), "commands above all headlines");
        let sections: Vec<_> = parts.map(Section::parse).collect();
        let blocks = sections.iter().flat_map(|it| &it.blocks);
        let outside: Vec<_> = blocks.filter(|block| block.is_outside).collect();
        let [outside] = outside[..] else {
            panic!("{OUTSIDE:?}: {} of them", outside.len());
        };
        for line in outside.commands.lines() {
            let program = line.split(' ').next().unwrap_or_default();
            assert!(OUTSIDE_PROGRAMS.contains(&program), "{line:?} can be run");
        }
        Self { sections }
    }
}

impl Section {
    fn parse(text: &str) -> Self {
        let (title, text) = text.split_once('\n').expect("text under a headline");
        let mut section = Self {
            title: title.to_owned(),
            blocks: Vec::new(),
        };
        // Prose and fenced blocks take turns.
        let mut parts = text.split("```");
        let mut prose = parts.next().unwrap_or_default();
        while let Some(fenced) = parts.next() {
            section.add(prose, fenced);
            prose = parts.next().expect("a fence that is closed");
        }
        section
    }

    fn add(&mut self, prose: &str, fenced: &str) {
        let (language, content) = fenced.split_once('\n').expect("a fence and its content");
        match language {
            "sh" => self.blocks.push(Block {
                commands: content.to_owned(),
                is_outside: one_line(prose).contains(OUTSIDE),
                ..Block::default()
            }),
            "text" => {
                let block = self.blocks.last_mut().expect("commands that print this");
                block.expected += content;
            }
            _ => panic!("{}: nobody runs or checks {language:?}", self.title),
        }
    }
}

impl Block {
    /// Asserts that each line that the README shows was printed, except for its numbers.
    pub(super) fn assert_expected(&self, output: &str, namespace: &str) {
        let output = output.replace(namespace, "default");
        let printed: Vec<_> = output.lines().map(shape).collect();
        for line in self.expected.lines() {
            let is_printed = printed.contains(&shape(line));
            assert!(is_printed, "{line:?} is not printed:\n{output}");
        }
    }
}

/// A line without its numbers, addresses and generated names: everything that differs from run to run has a digit. The
/// number of such words in a row, or of shares, may differ too.
fn shape(line: &str) -> String {
    let has_digit = |word: &str| word.contains(|it: char| it.is_ascii_digit());
    let words = line.split_whitespace();
    let words = words.filter(|word| *word != "%");
    let mut words: Vec<_> = words
        .map(|it| if has_digit(it) { "#" } else { it })
        .collect();
    words.dedup_by(|one, other| one == other && *one == "#");
    words.join(" ")
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(expected: &str) -> Block {
        let section = format!("Title\nProse.\n\n```sh\npods\n```\n\n```text\n{expected}\n```\n");
        let mut section = Section::parse(&section);
        section.blocks.pop().expect("one block")
    }

    #[test]
    fn numbers_may_differ_from_the_readme() {
        let block = block("name  nginx.default.svc.\n10.0.0.1 40 %  10.0.0.2 60 %");
        assert_eq!(block.commands, "pods\n");
        block.assert_expected("10.9.9.9 100 %\nname nginx.here.svc.\n", "here");
    }

    #[test]
    #[should_panic(expected = "\"took 1 ms\" is not printed")]
    fn words_may_not_differ_from_the_readme() {
        block("took 1 ms").assert_expected("took 1 s\n", "here");
    }

    #[test]
    #[should_panic(expected = "nobody runs or checks")]
    fn an_unknown_kind_of_block_panics() {
        Section::parse("Title\n```bash\nkubectl get pods\n```\n");
    }
}
