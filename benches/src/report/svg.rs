//! The report as a chart: bars by hand, so that no drawing library is needed.
//!
//! In: a [`Report`]. Out: an SVG with a panel for each metric that people ask for first.
//! Never: a background of its own: it stands on light pages and on dark ones, and its colours
//! follow what the reader prefers. Each bar says its number and its part of the bridge's.

use std::fmt::Write;

use super::{Report, Row};

/// Panels, in reading order: scenario, metric, heading.
const PANELS: [(&str, &str, &str); 8] = [
    ("pods-same-node", "tcp_1", "Pods on one node: TCP, 1 flow"),
    ("pods-same-node", "tcp_4", "Pods on one node: TCP, 4 flows"),
    (
        "pods-same-node",
        "udp_64",
        "64-byte frames, at most 0.1 % lost",
    ),
    (
        "pods-same-node",
        "udp_1400",
        "1400-byte payloads, at most 0.1 % lost",
    ),
    (
        "pods-same-node",
        "rtt_flood_p50",
        "Round trip, flooded (less is better)",
    ),
    (
        "pods-same-node",
        "rtt_paced_p50",
        "Round trip, every 2 ms (less is better)",
    ),
    ("core-l2", "mpps", "In memory, one core, 1,000 MACs"),
    ("core-l2-65536", "mpps", "In memory, one core, 65,536 MACs"),
];

const WIDTH: usize = 900;
const LABELS: usize = 130;
const BAR_MAX: f64 = 480.0;
const BAR: usize = 18;
const STEP: usize = 24;
const HEADING: usize = 34;
const MARGIN: usize = 16;

const STYLE: &str = "\
text { font: 13px system-ui, sans-serif; fill: #24292f; }
.title { font-size: 15px; font-weight: 600; }
.small { font-size: 11px; fill: #57606a; }
.ours { fill: #1a7f5a; } .bridge { fill: #8250df; } .other { fill: #8c959f; }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3; } .small { fill: #9198a1; }
.ours { fill: #3fb68b; } .bridge { fill: #a371f7; } .other { fill: #6e7681; }
}";

/// Draws it.
#[must_use]
pub fn draw(report: &Report) -> String {
    let mut body = String::new();
    let mut y = MARGIN;
    for (scenario, metric, heading) in PANELS {
        let of_panel = |row: &&Row| row.scenario == scenario && row.metric == metric;
        let rows: Vec<&Row> = report.rows.iter().filter(of_panel).collect();
        if !rows.is_empty() {
            y = panel(&mut body, y, heading, &rows);
        }
    }
    let foot = format!(
        "{}; {} round{}{}; TCP by {}",
        report.machine,
        report.rounds,
        if report.rounds == 1 { "" } else { "s, medians" },
        if report.rough { ", rough" } else { "" },
        report.congestion_control
    );
    text(&mut body, MARGIN, y + 12, "small", &foot);
    let height = y + 12 + MARGIN;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         aria-label=\"Tapline beside the Linux bridge and others\">\n\
         <style>\n{STYLE}\n</style>\n{body}</svg>\n"
    )
}

/// One panel; returns where the next begins.
fn panel(body: &mut String, top: usize, heading: &str, rows: &[&Row]) -> usize {
    let most = rows.iter().map(|row| row.median).fold(0.0, f64::max);
    text(body, MARGIN, top + 16, "title", heading);
    let mut y = top + HEADING;
    for row in rows {
        let part = if most > 0.0 { row.median / most } else { 0.0 };
        let class = match row.subject.as_str() {
            subject if subject.starts_with("tapline") => "ours",
            "linux-bridge" => "bridge",
            _ => "other",
        };
        let (length, left) = ((part * BAR_MAX).max(1.0), MARGIN + LABELS);
        text(body, MARGIN, y + 14, "", &row.subject);
        writeln!(
            body,
            "<rect class=\"{class}\" x=\"{left}\" y=\"{y}\" width=\"{length:.1}\" \
             height=\"{BAR}\" rx=\"2\"/>"
        )
        .expect("a String takes everything");
        let ratio = row.ratio_to_bridge.filter(|_| class != "bridge");
        let ratio = ratio.map_or_else(String::new, |r| format!(" ({r:.2} of the bridge)"));
        let label = format!("{} {}{ratio}", row.median, row.unit);
        text(body, left + length as usize + 8, y + 14, "", &label);
        y += STEP;
    }
    y + MARGIN
}

fn text(body: &mut String, x: usize, y: usize, class: &str, content: &str) {
    let class = if class.is_empty() {
        String::new()
    } else {
        format!(" class=\"{class}\"")
    };
    writeln!(
        body,
        "<text{class} x=\"{x}\" y=\"{y}\">{}</text>",
        escape(content)
    )
    .expect("a String takes everything");
}

fn escape(content: &str) -> String {
    content
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::example;

    /// Every element that opens closes, in order, and text holds no bare `<` or `&`.
    fn well_formed(svg: &str) -> bool {
        let mut open: Vec<&str> = Vec::new();
        let mut rest = svg;
        while let Some(start) = rest.find('<') {
            if rest[..start].contains('>') || !entities_only(&rest[..start]) {
                return false;
            }
            let Some(end) = rest.find('>') else {
                return false;
            };
            let tag = &rest[start + 1..end];
            let name = tag.split([' ', '/']).find(|word| !word.is_empty());
            match name {
                Some(name) if tag.starts_with('/') => {
                    if open.pop() != Some(name) {
                        return false;
                    }
                }
                Some(name) if !tag.ends_with('/') => open.push(name),
                Some(_) => {}
                None => return false,
            }
            if tag.matches('"').count() % 2 == 1 {
                return false;
            }
            rest = &rest[end + 1..];
        }
        open.is_empty() && rest.trim().is_empty()
    }

    fn entities_only(text: &str) -> bool {
        let known = ["&amp;", "&lt;", "&gt;"];
        text.match_indices('&')
            .all(|(at, _)| known.iter().any(|entity| text[at..].starts_with(entity)))
    }

    #[test]
    fn the_chart_is_well_formed_whatever_the_machine_is_called() {
        let mut report = example();
        report.machine = "2 x <Some> & Other CPU".into();
        let svg = draw(&report);
        assert!(well_formed(&svg), "{svg}");
        assert!(!well_formed("<a><b></a></b>") && !well_formed("<a>x & y</a>"));
    }

    #[test]
    fn lost_rows_are_drawn_as_well() {
        let svg = draw(&example());
        assert!(svg.contains("0.69 of the bridge"), "{svg}");
        assert!(svg.contains("2.50 of the bridge"), "{svg}");
        assert!(svg.contains("prefers-color-scheme: dark"), "{svg}");
    }
}
