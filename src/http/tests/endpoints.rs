//! The list of all endpoints, so that a new one, or one whose authentication or limit changed, is seen in a diff.
//!
//! `HEARTH_GOLDEN=write cargo test -p hearth-http endpoints` writes it anew.

use std::collections::BTreeSet;

use crate::{config::Kind, endpoints, routes};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/endpoints.txt");
const HEAD: &str = "# path, method, authentication, limit:cost, body in bytes: see src/http/tests/endpoints.rs\n";

#[test]
fn endpoints_are_as_listed() {
    let actual = format!("{HEAD}{}", endpoints());
    if std::env::var("HEARTH_GOLDEN").is_ok_and(|mode| mode == "write") {
        std::fs::write(FILE, &actual).unwrap();
    }
    let listed = std::fs::read_to_string(FILE).unwrap_or_default();
    let (listed, actual): (BTreeSet<&str>, BTreeSet<&str>) = (listed.lines().collect(), actual.lines().collect());
    let new: Vec<_> = actual.difference(&listed).collect();
    let gone: Vec<_> = listed.difference(&actual).collect();
    assert!(new.is_empty() && gone.is_empty(), "not in endpoints.txt: {new:#?}\nno longer served: {gone:#?}");
}

#[test]
fn no_method_of_a_path_is_declared_twice() {
    for kind in [Kind::Client, Kind::Federation, Kind::Metrics] {
        let mut seen = BTreeSet::new();
        for route in routes(kind) {
            for (path, _) in &route.place.paths {
                let shape = crate::router::numbered(path);
                assert!(seen.insert((route.place.method.to_string(), shape)), "{} {path} is there twice", route.place.method);
            }
        }
    }
}
