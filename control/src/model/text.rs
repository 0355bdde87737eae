//! A JSON document whose every value knows where it stands.
//!
//! In: a file, or text built in. Out: a tree, or one fault with line and column.
//! Never: accepts what Go's `encoding/json` refuses, apart from a byte order mark; reads
//! without a bound.
//!
//! Two readers look at the text. `serde_json` judges the grammar and bounds the nesting;
//! `jsonc-parser` gives positions, but lets a missing comma pass, so it never judges.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use jsonc_parser::common::Ranged;
use jsonc_parser::{CollectOptions, ParseOptions, ast};

use super::fault::{Place, Placed, Report};

/// The largest document read: Azure Resource Manager refuses templates over 4 MiB.
const DOCUMENT_BYTES_MAX: u64 = 4 << 20;

/// Where a document comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file.
    Path(PathBuf),
    /// A text built into the program, and the name it goes by.
    BuiltIn {
        /// The name printed in faults.
        name: &'static str,
        /// The text.
        text: &'static str,
    },
    /// Bytes that are in memory already, and the name they go by.
    Given {
        /// The name printed in faults.
        name: &'static str,
        /// The bytes.
        bytes: Arc<[u8]>,
    },
}

impl Source {
    /// The name that faults carry.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Source::Path(path) => path.display().to_string(),
            Source::BuiltIn { name, .. } | Source::Given { name, .. } => (*name).to_owned(),
        }
    }

    fn bytes(&self) -> std::io::Result<Vec<u8>> {
        match self {
            Source::BuiltIn { text, .. } => Ok(text.as_bytes().to_vec()),
            Source::Given { bytes, .. } => Ok(bytes.to_vec()),
            Source::Path(path) => {
                let mut bytes = Vec::new();
                File::open(path)?
                    .take(DOCUMENT_BYTES_MAX + 1)
                    .read_to_end(&mut bytes)?;
                Ok(bytes)
            }
        }
    }
}

/// A text and its line starts.
#[derive(Debug)]
pub(crate) struct Origin {
    file: String,
    text: String,
    line_starts: Vec<usize>,
}

impl Origin {
    fn new(file: String, text: String) -> Origin {
        let newlines = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let line_starts = std::iter::once(0)
            .chain(newlines.map(|(at, _)| at + 1))
            .collect();
        Origin {
            file,
            text,
            line_starts,
        }
    }

    /// An origin without a text: an option, or a file that could not be read.
    pub(crate) fn nowhere(file: &str) -> Origin {
        Origin {
            file: file.to_owned(),
            text: String::new(),
            line_starts: Vec::new(),
        }
    }

    pub(crate) fn file(&self) -> &str {
        &self.file
    }

    /// Line and column of a byte, both from 1; both 0 in an origin without a text.
    pub(crate) fn position(&self, offset: usize) -> (usize, usize) {
        let line = self.line_starts.partition_point(|start| *start <= offset);
        let Some(start) = line.checked_sub(1).map(|index| self.line_starts[index]) else {
            return (0, 0);
        };
        let before = self.text.get(start..offset).unwrap_or("");
        (line, before.chars().count() + 1)
    }
}

/// A value and its first byte; for a member of an object, the first byte of its key.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) offset: usize,
    pub(crate) value: Value,
}

/// A JSON value. Numbers keep their spelling, since Go tells `1` from `1.0`.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Null,
    Flag(bool),
    Number(String),
    Text(String),
    List(Vec<Node>),
    Object(Vec<Member>),
}

impl Value {
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Flag(_) => "true or false",
            Value::Number(_) => "a number",
            Value::Text(_) => "text",
            Value::List(_) => "a list",
            Value::Object(_) => "an object",
        }
    }
}

/// A member of an object.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) node: Node,
    /// An earlier member has the same name, apart from case.
    pub(crate) repeated: bool,
}

/// A document that is well-formed JSON with an object at its root.
#[derive(Debug)]
pub struct Document {
    origin: Arc<Origin>,
    members: Vec<Member>,
}

impl Document {
    /// Reads a document, or reports the one reason why it cannot be read.
    pub fn read(source: &Source, report: &mut Report) -> Option<Document> {
        let name = source.name();
        match source.bytes() {
            Ok(bytes) => Document::parse(name, &bytes, report),
            Err(reason) => {
                report.fault(&Place::option(&name, ""), reason.to_string());
                None
            }
        }
    }

    /// Reads a document in which comments and trailing commas are allowed.
    pub(crate) fn read_with_comments(source: &Source, report: &mut Report) -> Option<Document> {
        let name = source.name();
        match source.bytes() {
            Ok(bytes) => Document::parse_with_comments(name, &bytes, report),
            Err(reason) => {
                report.fault(&Place::option(&name, ""), reason.to_string());
                None
            }
        }
    }

    /// Parses bytes under the name of the file they came from.
    pub fn parse(file: String, bytes: &[u8], report: &mut Report) -> Option<Document> {
        Document::build(file, bytes, |text| Ok(text.to_owned()), report)
    }

    /// Parses bytes in which comments and trailing commas are allowed.
    pub(crate) fn parse_with_comments(
        file: String,
        bytes: &[u8],
        report: &mut Report,
    ) -> Option<Document> {
        Document::build(file, bytes, without_comments, report)
    }

    /// Parses what `plain` makes of the text. It may blank bytes and must not move any, so that
    /// places are those of the text as it was typed.
    fn build(
        file: String,
        bytes: &[u8],
        plain: impl Fn(&str) -> Result<String, (usize, String)>,
        report: &mut Report,
    ) -> Option<Document> {
        if bytes.len() as u64 > DOCUMENT_BYTES_MAX {
            let message = format!("larger than {DOCUMENT_BYTES_MAX} bytes");
            report.fault(&Place::option(&file, ""), message);
            return None;
        }
        // Go turns bytes that are not UTF-8 into U+FFFD as well.
        let text = String::from_utf8_lossy(bytes);
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text).to_owned();
        let origin = Arc::new(Origin::new(file, text));
        match plain(&origin.text).and_then(|plain| parse_value(&plain)) {
            Ok(Value::Object(members)) => Some(Document { origin, members }),
            Ok(other) => {
                let message = format!("expected an object, found {}", other.kind());
                report.fault(&Place::new(origin, String::new(), 0), message);
                None
            }
            Err((offset, message)) => {
                report.fault(&Place::new(origin, String::new(), offset), message);
                None
            }
        }
    }

    /// The root object.
    pub(crate) fn root(&self) -> Object<'_> {
        Object {
            members: &self.members,
            place: Place::new(Arc::clone(&self.origin), String::new(), 0),
        }
    }
}

/// The text with its comments and trailing commas blanked, byte by byte.
fn without_comments(text: &str) -> Result<String, (usize, String)> {
    let mut plain = text.to_owned();
    json_strip_comments::strip(&mut plain)
        .map_err(|reason| (text.len(), format!("a comment does not end: {reason}")))?;
    debug_assert_eq!(plain.len(), text.len(), "blanks take the place of what was");
    Ok(plain)
}

/// The tree of a text, or a byte offset and what is wrong there.
fn parse_value(text: &str) -> Result<Value, (usize, String)> {
    if let Err(reason) = serde_json::from_str::<serde_json::Value>(text) {
        let place = format!(" at line {} column {}", reason.line(), reason.column());
        let message = reason.to_string().replace(&place, "");
        return Err((offset_of(text, reason.line(), reason.column()), message));
    }
    let options = ParseOptions {
        allow_comments: false,
        allow_loose_object_property_names: false,
        allow_trailing_commas: false,
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        allow_unary_plus_numbers: false,
    };
    let parsed = jsonc_parser::parse_to_ast(text, &CollectOptions::default(), &options)
        .map_err(|reason| (reason.range().start, reason.kind().to_string()))?;
    Ok(parsed.value.map_or(Value::Null, build_value))
}

/// The byte that a line and a column of `serde_json` speak of.
fn offset_of(text: &str, line: usize, column: usize) -> usize {
    let start = match line.checked_sub(2) {
        None => 0,
        Some(skip) => text
            .match_indices('\n')
            .nth(skip)
            .map_or(0, |(at, _)| at + 1),
    };
    let mut offset = (start + column.saturating_sub(1)).min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}

fn build_value(value: ast::Value<'_>) -> Value {
    match value {
        ast::Value::NullKeyword(_) => Value::Null,
        ast::Value::BooleanLit(flag) => Value::Flag(flag.value),
        ast::Value::NumberLit(number) => Value::Number(number.value.to_owned()),
        ast::Value::StringLit(text) => Value::Text(text.value.into_owned()),
        ast::Value::Array(array) => Value::List(array.elements.into_iter().map(element).collect()),
        ast::Value::Object(object) => Value::Object(build_members(object.properties)),
    }
}

fn element(value: ast::Value<'_>) -> Node {
    let offset = value.start();
    Node {
        offset,
        value: build_value(value),
    }
}

/// Members in order. An object given twice is merged, as Go decodes both into one struct.
fn build_members(properties: Vec<ast::ObjectProp<'_>>) -> Vec<Member> {
    let mut members: Vec<Member> = Vec::with_capacity(properties.len());
    let mut seen: HashMap<String, usize> = HashMap::new();
    for property in properties {
        let offset = property.range.start;
        let name = property.name.into_string();
        let value = build_value(property.value);
        let earlier = seen.get(&fold(&name)).copied();
        if let (Some(index), Value::Object(more)) = (earlier, &value)
            && let Value::Object(first) = &mut members[index].node.value
        {
            first.extend(more.iter().cloned().map(|member| Member {
                repeated: true,
                ..member
            }));
            continue;
        }
        seen.insert(fold(&name), members.len());
        members.push(Member {
            name,
            node: Node { offset, value },
            repeated: earlier.is_some(),
        });
    }
    members
}

/// A key with its case folded as Go's `encoding/json` folds it: ASCII, and the two letters
/// outside ASCII whose small form is inside it.
pub(crate) fn fold(name: &str) -> String {
    let fold_one = |letter: char| match letter {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    };
    name.chars().map(fold_one).collect()
}

/// An object within a document, and its place.
#[derive(Clone, Debug)]
pub(crate) struct Object<'a> {
    pub(crate) members: &'a [Member],
    pub(crate) place: Place,
}

impl<'a> Object<'a> {
    /// The last member of that name that is not null, as Go would leave it.
    pub(crate) fn find(&self, name: &str) -> Option<(&'a Node, Place)> {
        let wanted = fold(name);
        let node = self
            .members
            .iter()
            .rev()
            .filter(|member| !matches!(member.node.value, Value::Null))
            .find(|member| fold(&member.name) == wanted)
            .map(|member| &member.node)?;
        Some((node, self.place.child(name).at(node.offset)))
    }

    /// The place of a member: its own if it is there, otherwise that of this object.
    pub(crate) fn place_of(&self, name: &str) -> Place {
        self.find(name)
            .map_or_else(|| self.place.child(name), |(_, place)| place)
    }

    pub(crate) fn object(&self, name: &str, report: &mut Report) -> Option<Object<'a>> {
        let (node, place) = self.find(name)?;
        as_object(node, place, report)
    }

    pub(crate) fn list(&self, name: &str, report: &mut Report) -> Vec<(&'a Node, Place)> {
        match self.find(name) {
            None => Vec::new(),
            Some((
                Node {
                    value: Value::List(nodes),
                    ..
                },
                place,
            )) => nodes
                .iter()
                .enumerate()
                .map(|(index, node)| (node, place.element(index, node.offset)))
                .collect(),
            Some((node, place)) => {
                wrong_kind(node, &place, "a list", report);
                Vec::new()
            }
        }
    }

    /// A text. Blank is absent: aks-engine cannot tell one from the other.
    pub(crate) fn text(&self, name: &str, report: &mut Report) -> Option<Placed<String>> {
        let (node, place) = self.find(name)?;
        match &node.value {
            Value::Text(text) if text.is_empty() => None,
            Value::Text(text) => Some(Placed::new(text.clone(), place)),
            _ => {
                wrong_kind(node, &place, "text", report);
                None
            }
        }
    }

    pub(crate) fn integer(&self, name: &str, report: &mut Report) -> Option<Placed<i64>> {
        let (node, place) = self.find(name)?;
        let number = match &node.value {
            Value::Number(spelling) => spelling.parse().ok(),
            _ => None,
        };
        if number.is_none() {
            wrong_kind(node, &place, "a whole number", report);
        }
        Some(Placed::new(number?, place))
    }

    pub(crate) fn flag(&self, name: &str, report: &mut Report) -> Option<Placed<bool>> {
        let (node, place) = self.find(name)?;
        match node.value {
            Value::Flag(flag) => Some(Placed::new(flag, place)),
            _ => {
                wrong_kind(node, &place, "true or false", report);
                None
            }
        }
    }

    /// A map of texts, such as `kubeletConfig`. Its keys keep their case.
    pub(crate) fn settings(&self, name: &str, report: &mut Report) -> Settings {
        let mut settings = Settings::default();
        let Some(object) = self.object(name, report) else {
            return settings;
        };
        for member in object.members {
            let place = object.place.child(&member.name).at(member.node.offset);
            match &member.node.value {
                Value::Null => {}
                Value::Text(text) => {
                    settings
                        .0
                        .insert(member.name.clone(), Placed::new(text.clone(), place));
                }
                _ => wrong_kind(&member.node, &place, "text", report),
            }
        }
        settings
    }
}

/// Options of a Kubernetes program, by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings(HashMap<String, Placed<String>>);

impl Settings {
    /// The option's value, unless it is blank.
    pub(crate) fn get(&self, option: &str) -> Option<&Placed<String>> {
        self.0
            .get(option)
            .filter(|setting| !setting.value.is_empty())
    }
}

pub(crate) fn as_object<'a>(
    node: &'a Node,
    place: Place,
    report: &mut Report,
) -> Option<Object<'a>> {
    if let Value::Object(members) = &node.value {
        return Some(Object { members, place });
    }
    wrong_kind(node, &place, "an object", report);
    None
}

fn wrong_kind(node: &Node, place: &Place, wanted: &str, report: &mut Report) {
    let found = match &node.value {
        Value::Number(spelling) => spelling.clone(),
        other => other.kind().to_owned(),
    };
    report.fault(place, format!("expected {wanted}, found {found}"));
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Document, String> {
        let mut report = Report::default();
        let document = Document::parse("a.json".to_owned(), text.as_bytes(), &mut report);
        match report.finish(&[]) {
            Ok(_) => Ok(document.expect("a document without faults")),
            Err(faults) => Err(faults.to_string()),
        }
    }

    #[test]
    fn broken_json_is_named_by_line_and_column() {
        assert_eq!(
            parse("{\n  \"a\": 1,\n}").unwrap_err(),
            "a.json:3:1: trailing comma"
        );
        assert_eq!(
            parse("{\n  \"a\": 1 \"b\": 2}").unwrap_err(),
            "a.json:2:10: expected `,` or `}`"
        );
        assert!(
            parse("{\"a\": 1} // why")
                .unwrap_err()
                .starts_with("a.json:1:10: ")
        );
        assert!(parse("").unwrap_err().starts_with("a.json:1:1: EOF"));
        assert!(
            parse("[]")
                .unwrap_err()
                .ends_with("expected an object, found a list")
        );
    }

    #[test]
    fn a_byte_order_mark_is_no_fault_and_moves_no_column() {
        assert!(parse("\u{feff}{}").is_ok());
        assert!(parse("\u{feff}{]").unwrap_err().starts_with("a.json:1:2: "));
    }

    #[test]
    fn deep_nesting_is_refused_before_the_stack_is_in_danger() {
        let text = format!("{{\"a\": {}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(parse(&text).unwrap_err().contains("recursion limit"));
    }

    #[test]
    fn a_document_over_four_mebibytes_is_refused() {
        let text = format!("{{\"a\": \"{}\"}}", "x".repeat(4 << 20));
        assert!(
            parse(&text)
                .unwrap_err()
                .contains("larger than 4194304 bytes")
        );
    }

    #[test]
    fn keys_fold_as_go_folds_them_and_the_last_one_wins() {
        let mut report = Report::default();
        let document = parse("{\"VNETSUBNETID\": \"x\", \"vnetſubnetId\": \"y\"}").unwrap();
        let text = document.root().text("vnetSubnetID", &mut report).unwrap();
        assert_eq!(text.value, "y");
        assert_eq!(text.place.path(), "vnetSubnetID");
    }

    #[test]
    fn null_leaves_an_earlier_value_alone() {
        let mut report = Report::default();
        let document = parse("{\"a\": 1, \"a\": null}").unwrap();
        assert_eq!(document.root().integer("a", &mut report).unwrap().value, 1);
    }

    #[test]
    fn an_object_given_twice_is_merged() {
        let mut report = Report::default();
        let document = parse("{\"a\": {\"x\": 1, \"y\": 1}, \"A\": {\"Y\": 2}}").unwrap();
        let object = document.root().object("a", &mut report).unwrap();
        assert_eq!(object.integer("x", &mut report).unwrap().value, 1);
        assert_eq!(object.integer("y", &mut report).unwrap().value, 2);
    }

    #[test]
    fn a_column_counts_characters() {
        let document = parse("{\"ä\": \"ö\", \"b\": \"x\"}").unwrap();
        let mut report = Report::default();
        assert!(document.root().integer("b", &mut report).is_none());
        let faults = report.finish(&[]).unwrap_err();
        assert_eq!(
            faults.to_string(),
            "a.json:1:12: b: expected a whole number, found text"
        );
    }
}
