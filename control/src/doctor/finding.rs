//! A finding of the doctor's, and how it is printed.
//!
//! In: what was found. Out: text and JSON. Never: a finding that is not good and has no next step.

use serde::Serialize;
use serde_json::{Value, json};

/// How it looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// As it should be.
    Good,
    /// Could not be examined.
    Unknown,
    /// Works, with less than could be.
    Warning,
    /// Does not work until somebody acts.
    Bad,
}

/// One thing that was examined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was examined, in one word.
    pub name: &'static str,
    /// How it looks.
    pub state: State,
    /// What was found.
    pub found: String,
    /// What to do, unless it is good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl Finding {
    pub(super) fn good(name: &'static str, found: impl Into<String>) -> Finding {
        Finding {
            name,
            state: State::Good,
            found: found.into(),
            next: None,
        }
    }

    fn with(name: &'static str, state: State, found: String, next: String) -> Finding {
        Finding {
            name,
            state,
            found,
            next: Some(next),
        }
    }

    pub(super) fn unknown(
        name: &'static str,
        found: impl Into<String>,
        next: impl Into<String>,
    ) -> Finding {
        Finding::with(name, State::Unknown, found.into(), next.into())
    }

    pub(super) fn warn(
        name: &'static str,
        found: impl Into<String>,
        next: impl Into<String>,
    ) -> Finding {
        Finding::with(name, State::Warning, found.into(), next.into())
    }

    pub(super) fn bad(
        name: &'static str,
        found: impl Into<String>,
        next: impl Into<String>,
    ) -> Finding {
        Finding::with(name, State::Bad, found.into(), next.into())
    }
}

/// The findings for people, the worst last, where a terminal leaves off.
#[must_use]
pub fn to_text(findings: &[Finding]) -> String {
    let mut sorted: Vec<&Finding> = findings.iter().collect();
    sorted.sort_by_key(|finding| finding.state);
    let mut text = String::new();
    for finding in sorted {
        let word = match finding.state {
            State::Good => "ok",
            State::Unknown => "unknown",
            State::Warning => "WARNING",
            State::Bad => "BAD",
        };
        text.push_str(&format!(
            "{word:<8} {:<16} {}\n",
            finding.name, finding.found
        ));
        if let Some(next) = &finding.next {
            text.push_str(&format!("{:<8} {:<16} next: {next}\n", "", ""));
        }
    }
    let count = |state| {
        findings
            .iter()
            .filter(|finding| finding.state == state)
            .count()
    };
    text.push_str(&format!(
        "{} examined: {} bad, {} with a warning, {} unknown\n",
        findings.len(),
        count(State::Bad),
        count(State::Warning),
        count(State::Unknown),
    ));
    text
}

/// The findings for programs.
#[must_use]
pub fn to_json(findings: &[Finding]) -> Value {
    let worst = findings.iter().map(|finding| finding.state).max();
    json!({ "worst": worst.unwrap_or(State::Good), "findings": findings })
}
