//! Functions of at most 70 lines and files of at most 600, outside tests.

use crate::source::{File, files};

const FUNCTION_MAX: usize = 70;
const FILE_MAX: usize = 600;

/// What is larger, with its lines. This list may only shrink: what is no longer larger must leave it, and the numbers only fall.
const LARGER: &[(&str, usize)] = &[];

/// The functions of a file as rustfmt writes them, with their lines, signature and braces included.
fn functions(file: &File) -> Vec<(String, usize)> {
    let mut functions = Vec::new();
    let mut open: Option<(String, String, usize)> = None;
    for (number, line) in file.code() {
        let indent = &line[..line.len() - line.trim_start().len()];
        match &open {
            None => {
                if let Some(name) = name_of(line.trim_start()).filter(|_| !line.ends_with("}") && !line.ends_with(';')) {
                    open = Some((name, format!("{indent}}}"), number));
                }
            }
            Some((name, end, began)) if line == *end || line == format!("{}) -> ();", indent) => {
                functions.push((name.clone(), number - began + 1));
                open = None;
            }
            Some(_) => {}
        }
    }
    functions
}

/// The name of the function that a line begins.
fn name_of(line: &str) -> Option<String> {
    let mut words = line.split([' ', '(', '<']).filter(|word| !word.is_empty());
    loop {
        match words.next()? {
            "pub" | "crate)" | "super)" | "const" | "async" => {}
            "fn" => return words.next().map(str::to_owned),
            _ => return None,
        }
    }
}

#[test]
fn functions_and_files_are_small() {
    let mut found = Vec::new();
    for file in files().iter().filter(|file| !file.is_test) {
        let lines = file.code().count();
        found.extend((lines > FILE_MAX).then(|| (file.path.clone(), lines)));
        let large = functions(file).into_iter().filter(|(_, lines)| *lines > FUNCTION_MAX);
        found.extend(large.map(|(name, lines)| (format!("{}: {name}", file.path), lines)));
    }
    let known = |name: &str| LARGER.iter().find(|(known, _)| *known == name).map(|(_, lines)| *lines);
    let grown: Vec<_> = found.iter().filter(|(name, lines)| known(name).is_none_or(|known| *lines > known)).collect();
    assert!(grown.is_empty(), "larger than {FUNCTION_MAX} lines a function or {FILE_MAX} a file: {grown:#?}");
    let shrunk: Vec<_> =
        LARGER.iter().filter(|(name, lines)| !found.iter().any(|(found, now)| found == name && now == lines)).collect();
    assert!(shrunk.is_empty(), "no longer so large, so write the new number or strike it off the list: {shrunk:#?}");
}

#[test]
fn functions_are_measured() {
    let text = "pub(crate) async fn long<T>(\n    a: u8,\n) -> u8 {\n    a\n}\n\nimpl X {\n    fn short(&self) {}\n    const fn two() {\n    }\n}\n";
    let file = File { path: "x.rs".into(), text: text.into(), is_test: false };
    assert_eq!(functions(&file), [("long".to_owned(), 5), ("two".to_owned(), 2)]);
}
