//! What is wrong with the input, and where.
//!
//! In: places in documents, and sentences about them. Out: a list sorted by position.
//! Never: stops at the first fault, or prints without being asked.

use std::fmt;
use std::sync::Arc;

use super::text::Origin;

/// How many faults are kept. A document with more has one cause, and nobody reads on.
const FAULTS_MAX: usize = 200;

/// Where a value stands: its document, its JSON path, and its first byte.
#[derive(Clone, Debug)]
pub struct Place {
    origin: Arc<Origin>,
    path: String,
    offset: usize,
}

impl Place {
    pub(crate) fn new(origin: Arc<Origin>, path: String, offset: usize) -> Place {
        Place {
            origin,
            path,
            offset,
        }
    }

    /// A place on the command line. It has a name, and neither line nor column.
    #[must_use]
    pub fn option(name: &str, path: &str) -> Place {
        Place {
            origin: Arc::new(Origin::nowhere(name)),
            path: path.to_owned(),
            offset: 0,
        }
    }

    /// The JSON path, such as `properties.masterProfile.count`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The same spot in the text under the path of one of its members.
    pub(crate) fn child(&self, name: &str) -> Place {
        let path = if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        };
        Place {
            origin: Arc::clone(&self.origin),
            path,
            offset: self.offset,
        }
    }

    /// The place of element `index` that starts at `offset`.
    pub(crate) fn element(&self, index: usize, offset: usize) -> Place {
        let path = format!("{}[{index}]", self.path);
        Place {
            origin: Arc::clone(&self.origin),
            path,
            offset,
        }
    }

    /// The same path at another spot in the text.
    pub(crate) fn at(&self, offset: usize) -> Place {
        Place {
            offset,
            ..self.clone()
        }
    }

    fn say(&self, message: String) -> Fault {
        let (line, column) = self.origin.position(self.offset);
        Fault {
            file: self.origin.file().to_owned(),
            path: self.path.clone(),
            line,
            column,
            message,
        }
    }
}

/// A value and the place it was read from.
#[derive(Clone, Debug)]
pub struct Placed<T> {
    /// What was read.
    pub value: T,
    /// Where it stands.
    pub place: Place,
}

impl<T> Placed<T> {
    pub(crate) fn new(value: T, place: Place) -> Placed<T> {
        Placed { value, place }
    }

    /// Another value with the same place.
    pub(crate) fn with<U>(&self, value: U) -> Placed<U> {
        Placed {
            value,
            place: self.place.clone(),
        }
    }
}

/// One thing that is wrong with the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The file as it was named, or the option of the command line.
    pub file: String,
    /// The JSON path; empty when the whole file is at fault.
    pub path: String,
    /// The line, from 1; 0 when there is none.
    pub line: usize,
    /// The column in characters, from 1; 0 when there is none.
    pub column: usize,
    /// What is wrong, in aks-engine's words where it has any.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        if !self.file.is_empty() {
            f.write_str(": ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

/// Every fault of a run, sorted by file and position.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// The faults, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Fault> {
        self.0.iter()
    }

    /// How many there are. Never none.
    #[must_use]
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl IntoIterator for Faults {
    type Item = Fault;
    type IntoIter = std::vec::IntoIter<Fault>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            fault.fmt(f)?;
        }
        Ok(())
    }
}

/// Something the operator should know, and that does not stop the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning(Fault);

impl Warning {
    /// The sentence without its place.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The JSON path, or nothing.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.0.path
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Gathers what is found while the input is read, in any order.
#[derive(Clone, Debug, Default)]
pub struct Report {
    faults: Vec<Fault>,
    unlisted: usize,
    warnings: Vec<Warning>,
}

impl Report {
    /// Records a fault. The same fault at the same place counts once.
    pub fn fault(&mut self, place: &Place, message: impl Into<String>) {
        if self.faults.len() >= FAULTS_MAX {
            self.unlisted += 1;
            return;
        }
        let fault = place.say(message.into());
        if !self.faults.contains(&fault) {
            self.faults.push(fault);
        }
    }

    /// Records a warning about a place.
    pub fn warn(&mut self, place: &Place, message: impl Into<String>) {
        if self.warnings.len() < FAULTS_MAX {
            self.warnings.push(Warning(place.say(message.into())));
        }
    }

    /// Records a warning that concerns no single place.
    pub fn note(&mut self, message: impl Into<String>) {
        self.warn(&Place::option("", ""), message);
    }

    /// Takes over what another report found, its faults as warnings: `what` was left out for them.
    pub(crate) fn warn_all(&mut self, other: Report, what: &str) {
        let left_out = other.faults.into_iter().map(|fault| Fault {
            message: format!("{what} is left out: {}", fault.message),
            ..fault
        });
        let warnings = left_out.map(Warning).chain(other.warnings);
        let room = FAULTS_MAX.saturating_sub(self.warnings.len());
        self.warnings.extend(warnings.take(room));
    }

    /// How many faults there are so far.
    #[must_use]
    pub fn fault_count(&self) -> usize {
        self.faults.len() + self.unlisted
    }

    /// Ends the report: the faults in the order of `files` and of their positions, or the
    /// warnings when there is no fault.
    pub fn finish(mut self, files: &[&str]) -> Result<Vec<Warning>, Faults> {
        if self.faults.is_empty() {
            return Ok(self.warnings);
        }
        let rank = |file: &str| files.iter().position(|known| *known == file);
        self.faults.sort_by_key(|fault| {
            (
                rank(&fault.file).unwrap_or(files.len()),
                fault.line,
                fault.column,
            )
        });
        if self.unlisted > 0 {
            let message = format!("and {} more faults", self.unlisted);
            self.faults.push(Place::option("tapline", "").say(message));
        }
        Err(Faults(self.faults))
    }
}
