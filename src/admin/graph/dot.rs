//! A graph for Graphviz ("The DOT Language").

use std::fmt::Write as _;

use rooms::graph::{Graph, Node, Told};

use super::{lines, plain};

/// The graph in the DOT language. Edges lead from an event to its parents, so that Graphviz draws the newest on top.
#[must_use]
pub fn dot(graph: &Graph, title: &str) -> String {
    let mut out = format!("digraph {} {{\n", quoted(title));
    out.push_str("  node [shape=box, style=filled, fillcolor=white, fontname=monospace, fontsize=10];\n");
    for node in &graph.nodes {
        let label = lines(node).map(|line| escaped(&line)).join("\\n");
        // Writing to a string does not fail.
        let _ = writeln!(out, "  {} [label=\"{label}\"{}];", quoted(node.event.as_str()), look(node));
    }
    for event in &graph.missing {
        let _ = writeln!(out, "  {} [label=\"missing\", style=dotted, shape=ellipse];", quoted(event.as_str()));
    }
    let known = |id: &str| graph.missing.iter().any(|event| event == id) || graph.nodes.iter().any(|node| node.event == id);
    for node in &graph.nodes {
        for parent in node.prev_events.iter().filter(|parent| known(parent.as_str())) {
            let _ = writeln!(out, "  {} -> {};", quoted(node.event.as_str()), quoted(parent.as_str()));
        }
    }
    out.push_str("}\n");
    out
}

fn look(node: &Node) -> String {
    let fill = if node.state_key.is_some() { ", fillcolor=lightblue" } else { "" };
    let edge = match node.standing {
        Told::Accepted if node.extremity => ", color=darkgreen, penwidth=3",
        Told::Accepted => "",
        Told::SoftFailed => ", color=orange, penwidth=2, style=\"filled,dashed\"",
        Told::Rejected => ", color=red, penwidth=2, style=\"filled,dashed\"",
        Told::Outlier => ", color=gray, fontcolor=gray, style=\"filled,dotted\"",
    };
    format!("{fill}{edge}")
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", escaped(&plain(text)))
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}
