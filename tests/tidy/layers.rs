//! The tables of `docs/architecture.md` against what cargo knows of the workspace.

use std::{collections::BTreeMap, fs, process::Command};

use serde_json::Value;

use crate::source::root;

/// The crates of the workspace by their short names, and what they depend on outside tests: other layers with a `/` before
/// their names, libraries without.
fn crates() -> BTreeMap<String, Vec<String>> {
    let mut command = Command::new(env!("CARGO"));
    command.args(["metadata", "--no-deps", "--format-version", "1", "--offline"]).current_dir(root());
    let metadata: Value = serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
    let text = |name: &Value| name.as_str().unwrap().to_owned();
    let short = |name: &Value| text(name).trim_start_matches("hearth-").to_owned();
    let used = |of: &Value| if of["path"].is_string() { format!("/{}", short(&of["name"])) } else { text(&of["name"]) };
    let packages = metadata["packages"].as_array().unwrap().iter().map(|package| {
        let dependencies = package["dependencies"].as_array().unwrap().iter().filter(|of| of["kind"] != "dev");
        (short(&package["name"]), dependencies.map(used).collect())
    });
    packages.collect()
}

/// The rows of the table below this heading of the architecture page, each as its cells without backticks.
fn table(heading: &str) -> Vec<Vec<String>> {
    let text = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let (_, section) = text.split_once(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("no section {heading}"));
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with('|')).skip(2);
    rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.replace('`', "").trim().to_owned()).collect()).collect()
}

fn words(cell: &str) -> Vec<String> {
    cell.split(", ").filter(|word| *word != "nothing").map(str::to_owned).collect()
}

#[test]
fn each_layer_uses_what_the_map_says() {
    let crates = crates();
    let rows = table("Layers");
    let names: Vec<_> = rows.iter().map(|row| row[0].clone()).collect();
    let mut expected: Vec<_> = crates.keys().filter(|name| *name != "bench").cloned().collect();
    expected.sort();
    let mut sorted = names.clone();
    sorted.sort();
    assert_eq!(sorted, expected, "the map has every layer, and only those");
    for (place, row) in rows.iter().enumerate() {
        let mut uses: Vec<_> = crates[&row[0]].iter().filter_map(|of| of.strip_prefix('/')).map(str::to_owned).collect();
        uses.sort();
        let mut said = words(&row[1]);
        said.sort();
        assert_eq!(uses, said, "{}: what it uses, and what docs/architecture.md says", row[0]);
        for of in uses {
            assert!(names[place + 1..].contains(&of), "{} uses {of}, which is not below it", row[0]);
        }
    }
}

#[test]
fn libraries_keep_to_their_layers() {
    let crates = crates();
    for row in table("Who may use which library") {
        let (library, allowed) = (&row[0], words(&row[1]));
        let users: Vec<_> =
            crates.iter().filter(|(name, uses)| *name != "bench" && uses.contains(library)).map(|(name, _)| name).collect();
        assert!(!users.is_empty(), "nobody uses {library}: strike it off docs/architecture.md");
        let others: Vec<_> = users.into_iter().filter(|name| !allowed.contains(name)).collect();
        assert!(others.is_empty(), "{library} is not for {others:?}");
    }
}
