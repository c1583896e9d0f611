#![allow(clippy::unwrap_used)]

use super::{
    layout::{Layout, Place},
    *,
};

/// A graph of lines `event: parents`, the oldest first; `?` before an event's name is a parent that is missing, and a mark behind it what
/// became of it: `!` rejected, `~` soft-failed, `.` outlier, `^` extremity, `=` state event.
fn drawn(text: &str) -> graph::Graph {
    let mut graph = graph::Graph::default();
    let id = |name: &str| OwnedEventId::try_from(format!("${name}:a")).unwrap();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (name, parents) = line.split_once(':').unwrap();
        let marks = name.trim_start_matches(char::is_alphanumeric);
        let prev_events = parents.split_whitespace().map(|parent| id(parent.trim_start_matches('?'))).collect();
        graph.missing.extend(parents.split_whitespace().filter_map(|parent| parent.strip_prefix('?')).map(id));
        let standing = match marks {
            "!" => Told::Rejected,
            "~" => Told::SoftFailed,
            "." => Told::Outlier,
            _ => Told::Accepted,
        };
        graph.nodes.push(Node {
            event: id(name.trim_end_matches(marks)),
            kind: "m.room.message".into(),
            state_key: (marks == "=").then(String::new),
            sender: "@alice:a".try_into().unwrap(),
            origin_server_ts: 0,
            depth: 1,
            prev_events,
            standing,
            reason: matches!(standing, Told::Rejected | Told::SoftFailed).then(|| "rule 6: the sender is not joined".into()),
            extremity: marks == "^",
            redacted: false,
        });
    }
    graph
}

fn places(text: &str) -> Vec<(usize, usize)> {
    Layout::of(&drawn(text)).places.iter().map(|Place { layer, lane }| (*layer, *lane)).collect()
}

#[test]
fn every_event_is_above_its_parents_and_branches_are_beside_each_other() {
    assert_eq!(places("a:\nb: a\nc: b"), [(0, 0), (1, 0), (2, 0)]);
    assert_eq!(places("a:\nb: a\nc: a\nd: b c"), [(0, 0), (1, 0), (1, 1), (2, 0)]);
    // A branch keeps its lane for as long as something follows it.
    assert_eq!(places("a:\nb: a\nc: a\nd: b\ne: d\nf: e c\ng: a"), [(0, 0), (1, 0), (1, 1), (2, 0), (3, 0), (4, 0), (1, 2)]);
    // Parents may come later than their children, as they do where they were fetched.
    assert_eq!(places("b: a\na:"), [(1, 0), (0, 0)]);
}

#[test]
fn no_two_events_share_a_place_whatever_they_claim() {
    let claims = ["a: b\nb: a\nc: a\nd:", "a: a", "a:\na:", "b: a a ?x\nc: b older", ""];
    for text in claims {
        let graph = drawn(text);
        let places = Layout::of(&graph).places;
        let distinct: BTreeSet<_> = places.iter().map(|place| (place.layer, place.lane)).collect();
        assert_eq!(distinct.len(), places.len(), "{text}");
        assert!(svg(&graph, "a room").ends_with("</svg>\n") && dot(&graph, "a room").ends_with("}\n"));
    }
}

#[test]
fn what_became_of_events_is_shown() {
    let graph = drawn("a=:\nb!: a\nc~: a\nd.: ?x\ne^: a ?y\nf: older");
    let svg = svg(&graph, "!room:a");
    for class in ["state ", "rejected", "soft_failed", "outlier", "extremity"] {
        assert_eq!(svg.matches(&format!("<g class=\"{class}\"><title>")).count(), 1, "{class}: {svg}");
    }
    assert!(svg.contains("rule 6: the sender is not joined") && svg.contains("1 missing") && svg.contains("class=\"older\""));
    let dot = dot(&graph, "!room:a");
    assert!(dot.starts_with("digraph \"!room:a\" {\n"), "{dot}");
    assert!(dot.contains("\"$b:a\" -> \"$a:a\";") && dot.contains("\"$e:a\" -> \"$y:a\";"), "{dot}");
    assert!(dot.contains("\"$x:a\" [label=\"missing\""), "{dot}");
    assert!(!dot.contains("older"), "{dot}");
    assert_eq!(
        (dot.matches("color=red").count(), dot.matches("color=orange").count(), dot.matches("darkgreen").count()),
        (1, 1, 1)
    );
}

#[test]
fn what_other_servers_write_cannot_break_out_of_a_drawing() {
    let mut graph = drawn("a=:");
    graph.nodes[0].kind = "</text><script>\"\\\"]; b [label=\"\u{1b}[2J\n\u{202e}".into();
    graph.nodes[0].state_key = Some("\" -> \"".into());
    let (svg, dot) = (svg(&graph, "<title>"), dot(&graph, "\"title\\"));
    assert!(
        !svg.contains("<script>") && !svg.contains("<title><") && !svg.contains('\u{1b}') && !svg.contains('\u{202e}'),
        "{svg}"
    );
    assert!(dot.starts_with("digraph \"\\\"title\\\\\" {"), "{dot}");
    let label = dot.lines().find(|line| line.contains("label=")).filter(|line| line.starts_with("  \"$a:a\"")).unwrap();
    assert!(label.contains("\\\"\\\\\\\"]; b [label=") && label.ends_with("fillcolor=lightblue];"), "{label}");
}
