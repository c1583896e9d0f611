//! The result of a scenario as a table for people, or as one line of JSON.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::delivery::Verdict;
use crate::failure::Failure;
use crate::scenarios::Scenario;
use crate::summary::{Run, compare};

/// Width of the column of names, which also holds the scenario's.
const NAME_WIDTH: usize = 40;
/// Width of a column of numbers.
const NUMBER_WIDTH: usize = 12;

/// A scenario's runs at N and 10 N, or why there are none.
#[derive(Debug)]
pub struct Report {
    /// Which scenario.
    pub scenario: Scenario,
    /// The two runs.
    pub runs: Result<[Run; 2], Failure>,
}

impl Report {
    /// Whether it ran, and all that was acknowledged was delivered.
    pub fn is_clean(&self) -> bool {
        self.verdict().is_some_and(|verdict| verdict.is_clean())
    }

    /// What both runs together delivered.
    fn verdict(&self) -> Option<Verdict> {
        let [small, large] = self.runs.as_ref().ok()?;
        let mut verdict = small.verdict;
        verdict += large.verdict;
        Some(verdict)
    }

    fn first_failure(&self) -> Option<&str> {
        self.runs.iter().flatten().find_map(|run| run.first_failure.as_deref())
    }

    /// Rows of name, value at N, value at 10 N and their ratio.
    pub fn table(&self) -> String {
        let name = self.scenario.name();
        let (Ok([small, large]), Some(verdict)) = (&self.runs, self.verdict()) else {
            return format!("{name}\n  failed: {}\n", self.runs.as_ref().err().map(ToString::to_string).unwrap_or_default());
        };
        let title = format!("{name} ({})", self.scenario.size().0);
        let mut table = row(&title, &small.size.to_string(), &large.size.to_string(), "ratio");
        for compared in compare(small, large) {
            let label = format!("  {}", compared.name.replace('_', " "));
            let ratio = compared.ratio().map(|ratio| format!("{ratio:.2}"));
            table += &row(&label, &cell(compared.small), &cell(compared.large), ratio.as_deref().unwrap_or("-"));
        }
        let Verdict { acknowledged, undelivered, duplicates, misordered, unasked, failed } = verdict;
        // Writing to a string cannot fail.
        let _ = writeln!(
            table,
            "  acknowledged {acknowledged}: undelivered {undelivered}, duplicates {duplicates}, misordered {misordered}, \
             unasked {unasked}, failed {failed}"
        );
        if let Some(failure) = self.first_failure() {
            let _ = writeln!(table, "  the first failure: {failure}");
        }
        table
    }

    /// The same as an object.
    pub fn json(&self) -> Value {
        let (counts, _) = self.scenario.size();
        let name = self.scenario.name();
        let (small, large) = match &self.runs {
            Ok([small, large]) => (small, large),
            Err(failure) => return json!({ "scenario": name, "counts": counts, "clean": false, "error": failure.to_string() }),
        };
        let metrics =
            |run: &Run| run.metrics.iter().map(|metric| (metric.name.clone(), json!(metric.value))).collect::<Map<_, _>>();
        let run = |run: &Run| json!({ "size": run.size, "metrics": metrics(run) });
        let ratios: Map<_, _> =
            compare(small, large).iter().filter_map(|row| Some((row.name.to_owned(), json!(row.ratio()?)))).collect();
        json!({
            "scenario": name,
            "counts": counts,
            "clean": self.is_clean(),
            "runs": [run(small), run(large)],
            "ratios": ratios,
            "delivery": self.verdict(),
            "first_failure": self.first_failure(),
        })
    }
}

fn row(name: &str, small: &str, large: &str, ratio: &str) -> String {
    format!("{name:<NAME_WIDTH$}{small:>NUMBER_WIDTH$}{large:>NUMBER_WIDTH$}{ratio:>NUMBER_WIDTH$}\n")
}

fn cell(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if value.abs() >= 100.0 => format!("{value:.0}"),
        Some(value) if value.abs() >= 1.0 => format!("{value:.2}"),
        Some(value) => format!("{value:.4}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    fn report(undelivered: usize) -> Report {
        let mut runs = [Run::new(5), Run::new(50)];
        for (run, value) in runs.iter_mut().zip([0.5, 150.0]) {
            run.metric("latency_p50_ms", value);
            run.verdict = Verdict { acknowledged: 10, undelivered, ..Verdict::default() };
        }
        Report { scenario: Scenario::SendLone, runs: Ok(runs) }
    }

    #[test]
    fn tables_name_sizes_ratio_and_verdict() {
        assert_eq!(
            report(0).table(),
            "send-lone (messages)                               5          50       ratio\n\
             \u{20} latency p50 ms                              0.5000         150      300.00\n\
             \u{20} acknowledged 20: undelivered 0, duplicates 0, misordered 0, unasked 0, failed 0\n"
        );
        assert!(report(0).is_clean());
    }

    #[test]
    fn a_lost_event_is_not_clean() {
        let report = report(1);
        assert!(!report.is_clean());
        assert!(report.table().contains("undelivered 2"));
        assert_eq!(report.json()["delivery"]["undelivered"], 2);
        assert_eq!(report.json()["clean"], false);
    }

    #[test]
    fn the_first_failure_is_named() {
        let mut report = report(0);
        if let Ok([_, large]) = &mut report.runs {
            large.verdict.failed = 3;
            large.first_failure = Some("429 M_LIMIT_EXCEEDED".to_owned());
        }
        assert!(!report.is_clean());
        assert!(report.table().ends_with("failed 3\n  the first failure: 429 M_LIMIT_EXCEEDED\n"));
        assert_eq!(report.json()["first_failure"], "429 M_LIMIT_EXCEEDED");
    }

    #[test]
    fn json_has_metrics_and_ratios() {
        let json = report(0).json();
        assert_eq!(json["scenario"], "send-lone");
        assert_eq!(json["runs"][1]["size"], 50);
        assert_eq!(json["runs"][1]["metrics"]["latency_p50_ms"], 150.0);
        assert_eq!(json["ratios"]["latency_p50_ms"], 300.0);
    }

    #[test]
    fn a_failed_scenario_is_reported_and_not_clean() {
        let report = Report { scenario: Scenario::Wake, runs: Err(Failure::Usage("no".to_owned())) };
        assert!(!report.is_clean());
        assert_eq!(report.table(), "wake\n  failed: no\n");
        assert_eq!(report.json()["error"], "no");
    }
}
