//! A drawing of a graph, the newest events on top.

use std::fmt::Write as _;

use rooms::graph::{Graph, Node, Told};

use super::{
    layout::{Layout, Place},
    lines, plain, shortened,
};

/// Sizes, in pixels.
const BOX_WIDTH: usize = 290;
const BOX_HEIGHT: usize = 54;
const LANE_WIDTH: usize = BOX_WIDTH + 30;
const LAYER_HEIGHT: usize = BOX_HEIGHT + 34;
const MARGIN: usize = 20;
const TOP: usize = 70;
const STUB: usize = 18;

const STYLE: &str = "text{font:11px monospace;fill:#222}.title{font-size:14px}\
rect{fill:#fff;stroke:#888}.state rect{fill:#dbeafe}.extremity rect{stroke:#15803d;stroke-width:3}\
.soft_failed rect{stroke:#ea580c;stroke-width:2;stroke-dasharray:6 3}.rejected rect{stroke:#dc2626;stroke-width:2;stroke-dasharray:6 3}\
.outlier rect{stroke:#9ca3af;stroke-dasharray:2 3}.outlier text{fill:#6b7280}\
path{fill:none;stroke:#666}.older{stroke-dasharray:2 3}.missing{stroke:#dc2626;stroke-dasharray:2 3}.gap{fill:#dc2626}";

/// What the classes look like, above the drawing.
const LEGEND: [(&str, &str); 6] = [
    ("", "message"),
    ("state", "state event"),
    ("extremity", "forward extremity"),
    ("soft_failed", "soft-failed"),
    ("rejected", "rejected"),
    ("outlier", "outlier"),
];

/// The graph as an SVG document of its own.
#[must_use]
pub fn svg(graph: &Graph, title: &str) -> String {
    let layout = Layout::of(graph);
    let width = 2 * MARGIN + (layout.lanes * LANE_WIDTH).max(LEGEND.len() * 150);
    let height = TOP + layout.layers * LAYER_HEIGHT + MARGIN;
    let mut out =
        format!("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\">\n<style>{STYLE}</style>\n");
    // Writing to a string does not fail.
    let _ = writeln!(out, "<text class=\"title\" x=\"{MARGIN}\" y=\"24\">{}</text>", escaped(title));
    for (at, (class, word)) in LEGEND.iter().enumerate() {
        let x = MARGIN + at * 150;
        let _ = writeln!(
            out,
            "<g class=\"{class}\"><rect x=\"{x}\" y=\"36\" width=\"16\" height=\"12\"/><text x=\"{}\" y=\"46\">{word}</text></g>",
            x + 22
        );
    }
    for (child, parent) in &layout.edges {
        edge(&mut out, &layout, layout.places[*child], layout.places[*parent]);
    }
    for ((node, place), stubs) in graph.nodes.iter().zip(&layout.places).zip(&layout.stubs) {
        stub(&mut out, corner(&layout, *place), *stubs);
        event(&mut out, node, corner(&layout, *place));
    }
    out.push_str("</svg>\n");
    out
}

/// The upper left corner of an event's box.
fn corner(layout: &Layout, place: Place) -> (usize, usize) {
    (MARGIN + place.lane * LANE_WIDTH, TOP + (layout.layers - 1 - place.layer) * LAYER_HEIGHT)
}

fn edge(out: &mut String, layout: &Layout, child: Place, parent: Place) {
    let ((from_x, from_y), (to_x, to_y)) = (corner(layout, child), corner(layout, parent));
    let (from_x, from_y, to_x) = (from_x + BOX_WIDTH / 2, from_y + BOX_HEIGHT, to_x + BOX_WIDTH / 2);
    // It goes down the lane of the child, and bends just before the parent.
    let bend = to_y.saturating_sub(LAYER_HEIGHT - BOX_HEIGHT).max(from_y);
    let middle = (bend + to_y) / 2;
    let _ = writeln!(out, "<path d=\"M{from_x} {from_y}V{bend}C{from_x} {middle} {to_x} {middle} {to_x} {to_y}\"/>");
}

/// Where parents are missing, or older than what is drawn.
fn stub(out: &mut String, (x, y): (usize, usize), (missing, older): (usize, usize)) {
    let y = y + BOX_HEIGHT;
    if older > 0 {
        let _ = writeln!(out, "<path class=\"older\" d=\"M{} {y}v{STUB}\"/>", x + BOX_WIDTH / 4);
    }
    if missing > 0 {
        let at = x + BOX_WIDTH * 3 / 4;
        let _ = writeln!(out, "<path class=\"missing\" d=\"M{at} {y}v{STUB}\"/>");
        let _ = writeln!(out, "<text class=\"gap\" x=\"{}\" y=\"{}\">{missing} missing</text>", at + 6, y + STUB);
    }
}

fn event(out: &mut String, node: &Node, (x, y): (usize, usize)) {
    let standing = match node.standing {
        Told::Accepted if node.extremity => "extremity",
        Told::Accepted => "",
        Told::SoftFailed => "soft_failed",
        Told::Rejected => "rejected",
        Told::Outlier => "outlier",
    };
    let state = if node.state_key.is_some() { "state " } else { "" };
    let reason = node.reason.as_deref().map(|reason| format!("\n{reason}")).unwrap_or_default();
    let about = format!("{}\n{} {}\n{}", node.event, node.kind, node.state_key.as_deref().unwrap_or_default(), node.sender);
    let _ = writeln!(out, "<g class=\"{state}{standing}\"><title>{}{}</title>", escaped_lines(&about), escaped_lines(&reason));
    let _ = writeln!(out, "<rect x=\"{x}\" y=\"{y}\" width=\"{BOX_WIDTH}\" height=\"{BOX_HEIGHT}\" rx=\"4\"/>");
    for (line, below) in lines(node).iter().zip([16, 31, 46]) {
        if !line.is_empty() {
            let _ = writeln!(out, "<text x=\"{}\" y=\"{}\">{}</text>", x + 8, y + below, escaped(&shortened(line)));
        }
    }
    out.push_str("</g>\n");
}

fn escaped_lines(text: &str) -> String {
    text.split('\n').map(escaped).collect::<Vec<_>>().join("\n")
}

fn escaped(text: &str) -> String {
    plain(text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}
