//! What was found: medians over the rounds, ratios to the Linux bridge, and who was left out.
//!
//! In: samples. Out: a [`Report`], to be shown as JSON, a table, Markdown or a chart.
//! Never: leaves out a row because it is lost.

pub mod svg;
pub mod table;

use std::collections::BTreeMap;
use std::fs;

use serde::Serialize;

use crate::names::{Metric, Scenario, Subject};
use crate::stats::{median, range};

/// One measurement.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Where.
    pub scenario: Scenario,
    /// Of whom.
    pub subject: Subject,
    /// Of what.
    pub metric: Metric,
    /// How much.
    pub value: f64,
    /// Under which settings.
    pub settings: String,
    /// Segments sent again meanwhile, for TCP.
    pub retransmits: Option<u64>,
}

/// The rounds of one metric of one subject, together.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Where.
    pub scenario: String,
    /// Of whom.
    pub subject: String,
    /// Of what.
    pub metric: &'static str,
    /// In what.
    pub unit: &'static str,
    /// The middle round.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
    /// The median as a part of the Linux bridge's.
    pub ratio_to_bridge: Option<f64>,
    /// Under which settings.
    pub settings: String,
    /// Segments sent again in the middle round, for TCP.
    pub retransmits: Option<u64>,
}

/// Who was left out, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// Who.
    pub subject: String,
    /// Why, and where.
    pub reason: String,
}

/// The whole comparison.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Processors and kernel.
    pub machine: String,
    /// Of both ends of every TCP flow.
    pub congestion_control: &'static str,
    /// How many.
    pub rounds: usize,
    /// By scenario, subject and metric.
    pub rows: Vec<Row>,
    /// Who was left out.
    pub skipped: Vec<Skipped>,
    /// One short round only; said in the settings of each row.
    #[serde(skip)]
    pub rough: bool,
    /// Processors that were busy with other things before anything was measured.
    #[serde(skip)]
    pub busy_before: f64,
}

/// What rough rows say.
const ROUGH: &str = "rough: one short round";

impl Report {
    /// Puts the rounds together.
    #[must_use]
    pub fn new(
        machine: String,
        congestion_control: &'static str,
        rounds: usize,
        rough: bool,
        samples: &[Sample],
        skipped: Vec<Skipped>,
    ) -> Report {
        let mut rows = rows(samples);
        if rough {
            for row in &mut rows {
                let given = std::mem::take(&mut row.settings);
                let parts = [given.as_str(), ROUGH];
                row.settings = parts
                    .into_iter()
                    .filter(|part| !part.is_empty())
                    .collect::<Vec<_>>()
                    .join(", ");
            }
        }
        Report {
            machine,
            congestion_control,
            rounds,
            rows,
            skipped,
            rough,
            busy_before: 0.0,
        }
    }

    /// As JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain fields are always JSON")
    }
}

/// Samples of one metric by the settings they were taken under.
type BySettings<'a> = BTreeMap<&'a str, Vec<&'a Sample>>;

fn rows(samples: &[Sample]) -> Vec<Row> {
    let mut grouped: BTreeMap<(Scenario, Subject, Metric), BySettings<'_>> = BTreeMap::new();
    for sample in samples {
        let key = (sample.scenario, sample.subject, sample.metric);
        let settings = grouped.entry(key).or_default();
        settings
            .entry(sample.settings.as_str())
            .or_default()
            .push(sample);
    }
    let chosen: BTreeMap<_, _> = grouped
        .iter()
        .filter_map(|((scenario, subject, metric), settings)| {
            let samples = |who, of| grouped.get(&(*scenario, who, of));
            let headline = metric.headline();
            let bearable = samples(Subject::LinuxBridge, headline).and_then(most_retransmits);
            let by = choose(headline, samples(*subject, headline)?, bearable)?;
            Some(((*scenario, *subject, *metric), settings.get(by)?.clone()))
        })
        .collect();
    let row = |((scenario, subject, metric), samples): (&(Scenario, Subject, Metric), &Vec<_>)| {
        let (name, unit, _) = metric.facts();
        let values = values(samples);
        let (min, max) = range(&values);
        let bridge = chosen.get(&(*scenario, Subject::LinuxBridge, *metric));
        let bridge = bridge.map(|samples| median(&self::values(samples)));
        let ratio = bridge.filter(|b| *b > 0.0).map(|b| median(&values) / b);
        Row {
            scenario: scenario.name(),
            subject: subject.name(),
            metric: name,
            unit,
            median: neat(median(&values)),
            min: neat(min),
            max: neat(max),
            ratio_to_bridge: ratio.map(neat),
            settings: samples[0].settings.clone(),
            retransmits: middle_retransmits(samples),
        }
    };
    chosen.iter().map(row).collect()
}

/// The settings to show: those measured most often, since they won the first round; of equals
/// those with no more retransmits than are `bearable`; of these the better.
fn choose<'a>(metric: Metric, settings: &BySettings<'a>, bearable: Option<u64>) -> Option<&'a str> {
    let sound = |samples: &[&Sample]| match (middle_retransmits(samples), bearable) {
        (Some(ours), Some(theirs)) => ours <= theirs,
        _ => true,
    };
    let most = settings.values().map(Vec::len).max()?;
    let often = settings.iter().filter(|(_, samples)| samples.len() == most);
    let best = often.max_by(|(_, a), (_, b)| {
        let order = median(&values(a)).total_cmp(&median(&values(b)));
        let order = if metric.more_is_better() {
            order
        } else {
            order.reverse()
        };
        sound(a).cmp(&sound(b)).then(order)
    });
    best.map(|(settings, _)| *settings)
}

/// The Linux bridge's retransmits under the setting where they are most.
fn most_retransmits(settings: &BySettings<'_>) -> Option<u64> {
    let each = settings.values().map(|samples| middle_retransmits(samples));
    each.max().flatten()
}

fn values(samples: &[&Sample]) -> Vec<f64> {
    samples.iter().map(|sample| sample.value).collect()
}

fn middle_retransmits(samples: &[&Sample]) -> Option<u64> {
    let mut known: Vec<u64> = samples.iter().filter_map(|s| s.retransmits).collect();
    known.sort_unstable();
    known.get(known.len() / 2).copied()
}

/// Four significant digits: the rest is noise.
fn neat(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let places = 3 - value.abs().log10().floor() as i32;
    let scale = 10_f64.powi(places.min(12));
    (value * scale).round() / scale
}

/// Processors and kernel, as the machine describes itself.
#[must_use]
pub fn machine_name() -> String {
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown processor", |(_, model)| model.trim());
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{count} x {model}, Linux {}", kernel.trim())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn sample(subject: Subject, metric: Metric, value: f64, settings: &str) -> Sample {
        Sample {
            scenario: Scenario::PodsSameNode,
            subject,
            metric,
            value,
            settings: settings.into(),
            retransmits: (metric == Metric::Tcp1).then_some(value as u64),
        }
    }

    pub(crate) fn example() -> Report {
        let (bridge, ours) = (Subject::LinuxBridge, Subject::TaplineVeth);
        let mut samples = Vec::new();
        for (a, b) in [(24.0, 18.0), (26.0, 20.0), (30.0, 13.0)] {
            samples.push(sample(bridge, Metric::Tcp1, a, "RPS off"));
            samples.push(sample(ours, Metric::Tcp1, b, "RPS off"));
        }
        samples.push(sample(ours, Metric::Tcp1, 99.0, "RPS on"));
        samples.push(sample(bridge, Metric::RttFloodP50, 6.0, "RPS off"));
        samples.push(sample(ours, Metric::RttFloodP50, 15.0, "RPS off"));
        let skipped = vec![Skipped {
            subject: "ovs-netdev".into(),
            reason: "pods-same-node: not <installed> & so on".into(),
        }];
        Report::new("2 x Some CPU".into(), "cubic", 3, true, &samples, skipped)
    }

    #[test]
    fn rows_hold_medians_ranges_and_ratios() {
        let report = example();
        let ours = report
            .rows
            .iter()
            .find(|row| row.subject == "tapline-veth" && row.metric == "tcp_1")
            .expect("it was measured");
        assert_eq!((ours.median, ours.min, ours.max), (18.0, 13.0, 20.0));
        assert_eq!(ours.ratio_to_bridge, Some(0.6923));
        assert_eq!(ours.retransmits, Some(18));
        assert_eq!(ours.settings, "RPS off, rough: one short round");
    }

    #[test]
    fn the_json_has_the_keys_that_were_promised_and_no_others() {
        let json: serde_json::Value = serde_json::from_str(&example().to_json()).expect("JSON");
        let keys = |value: &serde_json::Value| {
            let object = value.as_object().expect("an object");
            object.keys().cloned().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            keys(&json),
            "machine congestion_control rounds rows skipped"
        );
        assert_eq!(
            keys(&json["rows"][0]),
            "scenario subject metric unit median min max ratio_to_bridge settings retransmits"
        );
        assert_eq!(keys(&json["skipped"][0]), "subject reason");
        assert_eq!(json["rows"].as_array().map(Vec::len), Some(4));
    }

    #[test]
    fn numbers_keep_four_digits() {
        for (value, kept) in [
            (0.0, 0.0),
            (123_456.0, 123_500.0),
            (0.012_345_6, 0.012_35),
            (-7.654_321, -7.654),
        ] {
            assert!((neat(value) - kept).abs() < 1e-9, "{value}");
        }
    }
}
