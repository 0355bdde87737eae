//! The report as text: a table on a terminal, or Markdown.
//!
//! In: a [`Report`]. Out: text. Never: colours, or a width that a pipe would not know.

use comfy_table::{CellAlignment, ContentArrangement, Table, TableStyle, presets};

use super::{Report, Row};
use crate::cpu::NOT_IDLE;

const HEADER: [&str; 7] = [
    "metric",
    "subject",
    "median",
    "min to max",
    "of the bridge",
    "retransmits",
    "settings",
];

/// A table for each scenario.
#[must_use]
pub fn to_text(report: &Report) -> String {
    render(report, presets::NOTHING, "", false)
}

/// The same in Markdown.
#[must_use]
pub fn to_markdown(report: &Report) -> String {
    render(report, presets::ASCII_MARKDOWN, "### ", true)
}

fn render(report: &Report, preset: TableStyle, mark: &str, markdown: bool) -> String {
    let rounds = match report.rounds {
        1 => "one round".to_owned(),
        count => format!("medians of {count} alternating rounds"),
    };
    let rough = if report.rough { ", rough" } else { "" };
    let mut text = format!(
        "{}; {rounds}{rough}; TCP by {}\n",
        report.machine, report.congestion_control
    );
    if report.busy_before > NOT_IDLE {
        text += &format!(
            "The machine was not idle: {:.2} processors were busy before this began. Figures are \
             rough, and processor time is that of the programs alone.\n",
            report.busy_before
        );
    }
    let mut scenarios: Vec<&str> = report.rows.iter().map(|r| r.scenario.as_str()).collect();
    scenarios.dedup();
    for scenario in scenarios {
        text += &format!("\n{mark}{scenario}\n\n");
        let rows = report.rows.iter().filter(|row| row.scenario == scenario);
        text += &table(rows, preset);
        text.push('\n');
    }
    if !report.skipped.is_empty() {
        text += &format!("\n{mark}left out\n\n");
    }
    for skipped in &report.skipped {
        let bullet = if markdown { "- " } else { "  " };
        text += &format!("{bullet}{}: {}\n", skipped.subject, skipped.reason);
    }
    text
}

/// Subjects side by side: by metric in the order in which metrics first appear.
fn table<'a>(rows: impl Iterator<Item = &'a Row>, preset: TableStyle) -> String {
    let rows: Vec<&Row> = rows.collect();
    let mut metrics: Vec<&str> = Vec::new();
    for row in &rows {
        if !metrics.contains(&row.metric) {
            metrics.push(row.metric);
        }
    }
    let mut table = Table::new();
    table
        .load_style(preset)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(HEADER);
    for metric in metrics {
        for row in rows.iter().filter(|row| row.metric == metric) {
            table.add_row(cells(row));
        }
    }
    for right in [2, 3, 4, 5] {
        if let Some(column) = table.column_mut(right) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string()
}

fn cells(row: &Row) -> [String; 7] {
    [
        row.metric.to_owned(),
        row.subject.clone(),
        format!("{} {}", row.median, row.unit),
        format!("{} to {}", row.min, row.max),
        row.ratio_to_bridge
            .map_or_else(String::new, |ratio| format!("{ratio:.2}")),
        row.retransmits
            .map_or_else(String::new, |count| count.to_string()),
        row.settings.clone(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::example;

    #[test]
    fn subjects_stand_side_by_side() {
        let text = to_markdown(&example());
        let at = |needle: &str| {
            text.find(needle)
                .unwrap_or_else(|| panic!("{needle}\n{text}"))
        };
        assert!(at("### pods-same-node") < at("0.69"), "{text}");
        assert!(at("linux-bridge") < at("tapline-veth"), "{text}");
        assert!(at("0.69") < at("rtt_flood_p50"), "{text}");
        assert!(at("- ovs-netdev: pods-same-node") > at("2.50"), "{text}");
        assert!(at(", rough;") < at("### "), "{text}");
    }

    #[test]
    fn a_terminal_gets_the_same_rows() {
        let text = to_text(&example());
        assert!(
            text.contains("13 to 20") && text.contains("RPS off"),
            "{text}"
        );
    }
}
