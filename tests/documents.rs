//! Documents that are generated from the code, or held against it. `HEARTH_GOLDEN=write cargo test --test documents` writes the
//! generated ones anew.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use hearth::config::{Config, parse};
use store::{Owner, Preset, TableSpec};

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Compares a generated document with the file, or writes it.
fn golden(name: &str, text: &str) {
    if std::env::var("HEARTH_GOLDEN").is_ok_and(|mode| mode == "write") {
        fs::write(path(name), text).unwrap();
    }
    let found = fs::read_to_string(path(name)).unwrap_or_default();
    assert!(found == text, "{name} is out of date: run HEARTH_GOLDEN=write cargo test --release --test documents");
}

/// A type without the modules that it lives in: `(UserNo, String)`.
fn short(name: &str) -> String {
    let mut out = String::new();
    for word in name.split_inclusive(|c: char| !c.is_alphanumeric() && c != '_') {
        out += word;
        if out.ends_with("::") {
            let stem = out.trim_end_matches(':');
            out.truncate(stem.rfind(|c: char| !c.is_alphanumeric() && c != '_').map_or(0, |at| at + 1));
        }
    }
    out
}

fn traits(table: &TableSpec) -> String {
    let of = |owner, room: &'static str, user: &'static str| match owner {
        Owner::Nobody => None,
        Owner::Room => Some(room),
        Owner::User => Some(user),
    };
    let read = match table.preset {
        Preset::Point => "read by key",
        Preset::Scan => "read in ranges",
        Preset::Blob => "large rows, read by key",
    };
    let traits = [
        of(table.owner, "written under its room's lock", "written under its user's lock"),
        of(table.wakes, "wakes who watches the room", "wakes who watches the user"),
        Some(read),
        table.cached.then_some("kept decoded in memory"),
    ];
    traits.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

#[test]
fn the_schema_is_that_of_the_tables() {
    let mut text = "# Tables\n\n\
        All that Hearth stores, generated from the table constants of `src/*/` (`tests/documents.rs`). A key is a tuple whose parts are\n\
        encoded one after the other so that keys sort as their parts do; numbers such as `UserNo` stand for long ids. A value begins\n\
        with a format byte. A table is private to the module that declares it.\n"
        .to_owned();
    for (layer, tables) in hearth::TABLES {
        writeln!(text, "\n## `{layer}`\n\n| table | key | value | what a row means | how |\n|---|---|---|---|---|").unwrap();
        let mut tables = tables.to_vec();
        tables.sort_by_key(|table| table.name);
        for table in tables {
            let (key, value) = (table.types)();
            let TableSpec { name, about, .. } = table;
            writeln!(text, "| `{name}` | `{}` | `{}` | {about} | {} |", short(key), short(value), traits(table)).unwrap();
        }
    }
    golden("docs/schema.md", &text);
}

#[test]
fn tables_are_told_apart_by_name_and_explained() {
    let tables = hearth::tables();
    let names: BTreeSet<_> = tables.iter().map(|table| table.name).collect();
    assert_eq!(names.len(), tables.len());
    for table in tables {
        assert!(table.about.ends_with('.') && table.about.len() > 15, "{}: {}", table.name, table.about);
        assert!(!table.about.contains('|'), "{}: it goes into a Markdown table", table.name);
    }
}

#[test]
fn types_lose_their_modules_only() {
    let long = "(store::key::UserNo, alloc::vec::Vec<alloc::string::String>, [u8; 32], core::option::Option<u64>)";
    assert_eq!(short(long), "(UserNo, Vec<String>, [u8; 32], Option<u64>)");
}

/// The example as it is, and with its optional keys too: those behind `#`.
fn example() -> (String, String) {
    let text = fs::read_to_string(path("config.example.toml")).unwrap();
    let is_key = |line: &str| line.starts_with('[') || line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '));
    let whole = text.lines().map(|line| line.strip_prefix('#').filter(|line| is_key(line)).unwrap_or(line));
    let whole = whole.collect::<Vec<_>>().join("\n");
    (text, whole)
}

#[test]
fn the_example_configuration_is_the_default_one() {
    let (text, whole) = example();
    assert_eq!(format!("{:#?}", parse(&text).unwrap()), format!("{:#?}", Config::default()));
    parse(&whole).unwrap();
}

/// Sections with keys of the operator's making.
const FREE: &str = "[registration.terms.";

/// What a section may have is told by the complaint about what it may not.
fn allowed_in(whole: &str, header: &str) -> BTreeSet<String> {
    const STRANGER: &str = "no_such_key";
    let text = if header.is_empty() {
        format!("{STRANGER} = 1\n{whole}")
    } else {
        whole.replacen(&format!("{header}\n"), &format!("{header}\n{STRANGER} = 1\n"), 1)
    };
    match parse(&text) {
        Err(hearth::config::Error::UnknownKey { allowed, .. }) => allowed.into_iter().collect(),
        other => panic!("{header} takes any key: {:?}", other.err()),
    }
}

#[test]
fn the_example_configuration_has_every_key() {
    let (_, whole) = example();
    let mut sections = vec![(String::new(), BTreeSet::new())];
    for line in whole.lines() {
        if line.starts_with('[') {
            sections.push((line.to_owned(), BTreeSet::new()));
        } else if let Some((key, _)) = line.split_once(" = ").filter(|_| !line.starts_with(['#', ' '])) {
            sections.last_mut().unwrap().1.insert(key.to_owned());
        }
    }
    let headers: Vec<_> = sections.iter().map(|(header, _)| header.trim_matches(['[', ']']).to_owned()).collect();
    for (header, keys) in sections.iter().filter(|(header, _)| !header.starts_with(FREE)) {
        let name = header.trim_matches(['[', ']']);
        for key in allowed_in(&whole, header) {
            let bare = ["_bytes", "_ms", "_s"].iter().find_map(|unit| key.strip_suffix(unit)).unwrap_or(&key);
            let section = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
            let is_there = keys.contains(&key)
                || keys.contains(bare)
                || headers.iter().any(|header| *header == section || header.starts_with(&format!("{section}.")));
            assert!(is_there, "config.example.toml lacks {section}");
        }
    }
}
