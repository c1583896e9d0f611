//! The Rust files of the checkout, and what holds of each.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// A Rust file.
pub struct File {
    /// Its path from the checkout's root.
    pub path: String,
    pub text: String,
    /// Whether it is compiled for tests only.
    pub is_test: bool,
}

impl File {
    /// Its lines, with their numbers, without those of its test modules.
    pub fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let mut in_tests = self.is_test;
        let mut after_cfg = false;
        (1..).zip(self.text.lines()).filter(move |(_, line)| {
            if after_cfg && line.starts_with("mod ") && line.ends_with('{') {
                in_tests = true;
            }
            after_cfg = is_test_cfg(line);
            let skip = in_tests || after_cfg;
            if in_tests && *line == "}" {
                in_tests = self.is_test;
            }
            !skip
        })
    }
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn is_test_cfg(line: &str) -> bool {
    line.starts_with("#[cfg(test)]") || line.starts_with("#[cfg(any(test,")
}

/// All Rust files below `src` and `tests`.
pub fn files() -> Vec<File> {
    let mut paths = Vec::new();
    ["src", "tests"].iter().for_each(|folder| collect(&root().join(folder), &mut paths));
    paths.sort();
    let texts: Vec<_> = paths.into_iter().map(|path| (fs::read_to_string(&path).unwrap(), path)).collect();
    let tests: BTreeSet<PathBuf> = texts.iter().flat_map(|(text, path)| test_modules(text, path)).collect();
    let file = |(text, path): (String, PathBuf)| {
        let relative = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        let in_tests = relative.starts_with("tests/") || relative.contains("/tests/") || relative.ends_with("_tests.rs");
        let is_test =
            in_tests || path.ancestors().any(|folder| tests.contains(folder) || tests.contains(&folder.with_extension("rs")));
        File { path: relative, text, is_test }
    };
    texts.into_iter().map(file).collect()
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("node_modules") {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}

/// The files of modules that a file declares for tests only.
fn test_modules(text: &str, path: &Path) -> Vec<PathBuf> {
    let stem = path.file_stem().unwrap();
    let own = stem == "mod" || stem == "lib" || stem == "main";
    let folder = if own { path.parent().unwrap().to_owned() } else { path.with_extension("") };
    let lines: Vec<_> = text.lines().collect();
    let declared = lines.windows(2).filter(|pair| is_test_cfg(pair[0]));
    let name = |line: &str| Some(line.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';')?.to_owned());
    declared.filter_map(|pair| name(pair[1])).map(|name| folder.join(name).with_extension("rs")).collect()
}

#[test]
fn test_code_is_told_from_the_rest() {
    let text = "use a;\n#[cfg(test)]\nmod tests {\n    fn t() {}\n}\nfn f() {}\n".to_owned();
    let file = File { path: "x.rs".into(), text, is_test: false };
    let lines: Vec<_> = file.code().map(|(number, _)| number).collect();
    assert_eq!(lines, [1, 6]);
    let modules = test_modules("#[cfg(test)]\nmod tests;\nmod real;\n", Path::new("/r/src/x.rs"));
    assert_eq!(modules, [PathBuf::from("/r/src/x/tests.rs")]);
}

#[test]
fn every_file_says_why_it_exists() {
    let silent = files().into_iter().filter(|file| !file.is_test && !file.text.starts_with("//!"));
    let silent: Vec<_> = silent.map(|file| file.path).collect();
    assert!(silent.is_empty(), "no module documentation: {silent:?}");
}

/// What code outside tests may call in one place only, and why.
const BANNED: [(&str, &[&str], &str); 7] = [
    ("SystemTime::now", &["src/store/clock.rs"], "time is an argument, so that tests can set it"),
    // In sync.rs it is tokio's, which tests can pause; in commit.rs it decides which thread waits for the disk, and nothing else.
    (
        "Instant::now",
        &["src/store/clock.rs", "src/store/commit.rs", "src/http/client/sync.rs", "tests/bench"],
        "time is an argument, so that tests can set it",
    ),
    ("rand::rng()", &[], "randomness is an argument, so that tests can seed it"),
    ("make_rng", &["src/cli"], "randomness begins in the root"),
    ("tokio::spawn", &["src/cli", "src/jobs"], "a task belongs to someone who ends it: use a JoinSet"),
    ("unbounded_channel", &[], "a queue has a limit"),
    ("#[allow(", &[], "`expect` with a reason tells when it is no longer needed"),
];

#[test]
fn clocks_randomness_and_endless_queues_keep_to_their_places() {
    let mut found = Vec::new();
    for file in files().iter().filter(|file| !file.path.starts_with("tests/tidy")) {
        let banned = BANNED.iter().filter(|(_, places, _)| !places.iter().any(|place| file.path.starts_with(place)));
        for (word, _, why) in banned {
            let lines = file.code().filter(|(_, line)| line.contains(word) && !line.trim_start().starts_with("//"));
            found.extend(lines.map(|(number, _)| format!("{}:{number}: {word}: {why}", file.path)));
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}
