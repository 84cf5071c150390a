//! Reading Rust just well enough: code without comments and texts.

/// Where we are between two characters.
#[derive(Clone, Copy, PartialEq)]
enum State {
    Code,
    /// In `/* */`, so deep.
    Comment(usize),
    Text,
    /// In `r#""#` with so many `#`.
    Raw(usize),
}

/// The lines of a source with comments and the insides of texts left out.
pub fn code(source: &str) -> Vec<String> {
    let mut state = State::Code;
    source.lines().map(|line| code_of_line(line, &mut state)).collect()
}

fn code_of_line(line: &str, state: &mut State) -> String {
    let mut code = String::new();
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        let mut skip = first.len_utf8();
        match *state {
            State::Code if rest.starts_with("//") => break,
            State::Code if rest.starts_with("/*") => {
                *state = State::Comment(1);
                skip = 2;
            }
            State::Code if rest.starts_with("'\"'") => skip = 3,
            State::Code if rest.starts_with("'\\\"'") => skip = 4,
            State::Code if first == '"' => *state = State::Text,
            State::Code => match raw_start(rest).filter(|_| !code.ends_with(word_character)) {
                Some((hashes, length)) => {
                    *state = State::Raw(hashes);
                    skip = length;
                }
                None => code.push(first),
            },
            State::Comment(depth) if rest.starts_with("*/") => {
                *state = if depth == 1 { State::Code } else { State::Comment(depth - 1) };
                skip = 2;
            }
            State::Comment(depth) if rest.starts_with("/*") => {
                *state = State::Comment(depth + 1);
                skip = 2;
            }
            State::Text if first == '\\' => {
                skip += rest.chars().nth(1).map_or(0, char::len_utf8);
            }
            State::Text if first == '"' => *state = State::Code,
            State::Raw(hashes) if first == '"' && rest[1..].starts_with(&"#".repeat(hashes)) => {
                *state = State::Code;
                skip = 1 + hashes;
            }
            State::Comment(_) | State::Text | State::Raw(_) => {}
        }
        rest = &rest[skip..];
    }
    code
}

/// `r"`, `br##"`: the number of `#` and the length.
fn raw_start(rest: &str) -> Option<(usize, usize)> {
    let after = rest.strip_prefix("br").or_else(|| rest.strip_prefix("cr"));
    let after = after.or_else(|| rest.strip_prefix('r'))?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    after[hashes..].starts_with('"').then(|| (hashes, rest.len() - after.len() + hashes + 1))
}

/// Whether a line has a word by itself.
pub fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        !line[..at].ends_with(word_character)
            && !line[at + word.len()..].starts_with(word_character)
    })
}

fn word_character(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// The line from which a file holds tests only: 0 for a file of tests. Tests
/// stand at the end of a file.
pub fn tests_start(name: &str, source: &str) -> usize {
    if name.starts_with("tests/") || name.contains("/tests/") {
        return 0;
    }
    let start = test_items(source).find(|(_, item)| item.ends_with('{'));
    start.map_or(usize::MAX, |(line, _)| line)
}

/// Where the files of modules lie that this file declares for tests alone:
/// what their names begin with.
pub fn test_modules(name: &str, source: &str) -> Vec<String> {
    let stem = name.strip_suffix(".rs").unwrap_or(name);
    let parent = ["/lib", "/main", "/mod"].iter().find_map(|end| stem.strip_suffix(end));
    let directory = parent.unwrap_or(stem);
    let declared = test_items(source).filter_map(|(_, item)| {
        let module = item.strip_suffix(';')?.rsplit_once("mod ")?.1;
        Some([format!("{directory}/{module}.rs"), format!("{directory}/{module}/")])
    });
    declared.flatten().collect()
}

/// How items that only tests see are marked; the feature is for tests of
/// other crates.
const FOR_TESTS: &[&str] =
    &["#[cfg(test)]", "#[cfg(feature = \"testing\")]", "#[cfg(any(test, feature = \"testing\"))]"];

/// The lines with such marks, each with the line of the item that follows.
fn test_items(source: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = source.lines().enumerate();
    lines.zip(source.lines().skip(1)).filter_map(|((at, line), next)| {
        FOR_TESTS.contains(&line.trim()).then_some((at, next.trim()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_texts_are_left_out() {
        let source =
            "let a = \"x // \\\" y\"; // z\nb /* c\nd */ e; '\"' f r#\"g\"h\"# i\nfor\"j\"";
        assert_eq!(code(source), ["let a = ; ", "b ", " e;  f  i", "for"]);
    }

    #[test]
    fn where_tests_are() {
        let source = "#[cfg(test)]\npub(crate) mod kit;\nfn f() {}\n#[cfg(test)]\nmod tests {\n}";
        assert_eq!(tests_start("crates/a/src/lib.rs", source), 3);
        assert_eq!(tests_start("tests/src/a.rs", source), 0);
        let modules = test_modules("crates/a/src/lib.rs", source);
        assert_eq!(modules, ["crates/a/src/kit.rs", "crates/a/src/kit/"]);
        assert_eq!(test_modules("crates/a/src/b.rs", source)[0], "crates/a/src/b/kit.rs");
    }

    #[test]
    fn words() {
        assert!(has_word("unsafe {", "unsafe"));
        assert!(!has_word("#![forbid(unsafe_code)]", "unsafe"));
    }
}
