//! RocksDB takes ten minutes to compile. Whichever package is built, it must be the same RocksDB, or it is compiled twice.

use std::{collections::BTreeSet, process::Command};

use crate::source::root;

/// What RocksDB is built from, with features.
fn rocksdb_of(selection: &[&str]) -> BTreeSet<String> {
    let mut command = Command::new(env!("CARGO"));
    command.args(["tree", "--offline", "--locked", "--edges", "normal,build", "--prefix", "none", "--format", "{p} {f}"]);
    let output = command.args(selection).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let part = ["librocksdb-sys ", "zstd-sys ", "lz4-sys ", "bindgen ", "clang-sys "];
    let lines = text.lines().filter(|line| part.iter().any(|part| line.starts_with(part)));
    lines.map(|line| line.trim_end_matches(" (*)").trim_end().to_owned()).collect()
}

#[test]
fn rocksdb_is_the_same_for_every_package() {
    let whole = rocksdb_of(&["--workspace"]);
    assert!(whole.iter().any(|line| line.starts_with("librocksdb-sys ")), "{whole:?}");
    for layer in [
        "hearth",
        "hearth-store",
        "hearth-users",
        "hearth-rooms",
        "hearth-media",
        "hearth-views",
        "hearth-federation",
        "hearth-admin",
        "hearth-http",
    ] {
        assert_eq!(rocksdb_of(&["--package", layer]), whole, "{layer}: unify the features in src/store/Cargo.toml");
    }
}
