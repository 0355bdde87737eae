//! A text against the schema: values of a wrong kind, and keys that nobody knows.
//!
//! In: a document and the schema that follows from `raw`. Out: the raw configuration without what
//! was at fault, where each of its values stands, and a fault for each value left out.
//! Never: reads the meaning of a text; stops at the first fault.

use std::collections::HashMap;

use serde_json::{Map, Number, Value as Json};

use super::raw::RawConfig;
use super::schema;
use crate::model::{Document, Member, Node, Place, Report, Value};

/// What was typed, and where.
pub(super) struct Shaped {
    pub(super) raw: RawConfig,
    root: Place,
    /// By the path in `raw`, from whose lists faulty elements are gone. A value that was left out
    /// for a fault is here too.
    places: HashMap<String, Place>,
}

impl Shaped {
    /// Where the value of that path stands, or its nearest ancestor that is there.
    pub(super) fn place(&self, path: &str) -> Place {
        if let Some(place) = self.places.get(path) {
            return place.clone();
        }
        let (parent, name) = path.rsplit_once('.').unwrap_or(("", path));
        let above = match parent {
            "" => self.root.clone(),
            parent => self.place(parent),
        };
        above.child(name)
    }

    /// Whether somebody wrote that key, be it wrongly.
    pub(super) fn is_written(&self, path: &str) -> bool {
        self.places.contains_key(path)
    }
}

/// Holds a document against the schema.
pub(super) fn read(document: &Document, report: &mut Report) -> Option<Shaped> {
    let schema = schema::tree();
    let root = document.root();
    let mut walk = Walk {
        schema: &schema,
        report,
        places: HashMap::new(),
    };
    let kept = walk.object(&schema, root.members, &root.place, "");
    let places = walk.places;
    match serde_path_to_error::deserialize(&kept) {
        Ok(raw) => Some(Shaped {
            raw,
            root: root.place,
            places,
        }),
        Err(error) => {
            let path = error.path().to_string();
            let place = places.get(&path).unwrap_or(&root.place);
            report.fault(place, error.inner().to_string());
            None
        }
    }
}

struct Walk<'a> {
    schema: &'a Json,
    report: &'a mut Report,
    places: HashMap<String, Place>,
}

impl Walk<'_> {
    fn object(&mut self, schema: &Json, members: &[Member], place: &Place, path: &str) -> Json {
        let known = schema.get("properties").and_then(Json::as_object);
        let others = schema
            .get("additionalProperties")
            .filter(|others| others.is_object());
        let mut kept = Map::new();
        for member in members {
            let own = place.child(&member.name).at(member.node.offset);
            let path = join(path, &member.name);
            let rule = known.and_then(|known| known.get(&member.name)).or(others);
            let Some(rule) = rule else {
                self.report.fault(&own, unknown(&member.name, known));
                continue;
            };
            if self.places.contains_key(&path) {
                self.report.fault(&own, "given twice");
                continue;
            }
            self.places.insert(path.clone(), own.clone());
            if let Some(value) = self.value(rule, &member.node, &own, &path) {
                kept.insert(member.name.clone(), value);
            }
        }
        Json::Object(kept)
    }

    /// The value, unless it is at fault. `null` is what is not there.
    fn value(&mut self, rule: &Json, node: &Node, place: &Place, path: &str) -> Option<Json> {
        let rule = self.resolve(rule);
        match &node.value {
            Value::Null => None,
            Value::Object(members) if is(&rule, "object") => {
                Some(self.object(&rule, members, place, path))
            }
            Value::List(elements) if is(&rule, "array") => {
                Some(self.list(&rule, elements, place, path))
            }
            Value::Flag(flag) if is(&rule, "boolean") => Some(Json::Bool(*flag)),
            Value::Number(spelling) if is(&rule, "integer") => self.integer(&rule, spelling, place),
            Value::Text(text)
                if choices(&rule).is_some_and(|all| !all.contains(&text.as_str())) =>
            {
                let all = choices(&rule).unwrap_or_default().join(", ");
                let message = format!("'{text}' is none of: {all}");
                self.report.fault(place, message);
                None
            }
            Value::Text(text) if is(&rule, "string") => Some(Json::String(text.clone())),
            other => {
                let found = match other {
                    Value::Number(spelling) => spelling,
                    other => other.kind(),
                };
                let message = format!("expected {}, found {found}", wanted(&rule));
                self.report.fault(place, message);
                None
            }
        }
    }

    fn list(&mut self, rule: &Json, elements: &[Node], place: &Place, path: &str) -> Json {
        let item = rule.get("items").cloned().unwrap_or(Json::Bool(true));
        let mut kept = Vec::new();
        for (index, element) in elements.iter().enumerate() {
            let own = place.element(index, element.offset);
            let path = format!("{path}[{}]", kept.len());
            self.places.insert(path.clone(), own.clone());
            if matches!(element.value, Value::Null) {
                self.report.fault(&own, "expected a value, found null");
            }
            kept.extend(self.value(&item, element, &own, &path));
        }
        Json::Array(kept)
    }

    fn integer(&mut self, rule: &Json, spelling: &str, place: &Place) -> Option<Json> {
        let bound = |name: &str| rule.get(name).and_then(Json::as_u64);
        let (least, most) = (bound("minimum").unwrap_or(0), bound("maximum"));
        let number: Option<u64> = spelling.parse().ok();
        let number = number.filter(|n| *n >= least && most.is_none_or(|most| *n <= most));
        if number.is_none() {
            let most = most.unwrap_or(u64::MAX);
            let message =
                format!("expected a whole number from {least} to {most}, found {spelling}");
            self.report.fault(place, message);
        }
        number.map(|number| Json::Number(Number::from(number)))
    }

    /// The rule behind references and behind what may be left out.
    fn resolve(&self, rule: &Json) -> Json {
        let pointer = rule.get("$ref").and_then(Json::as_str);
        if let Some(pointer) = pointer.and_then(|pointer| pointer.strip_prefix('#')) {
            let target = self.schema.pointer(pointer);
            return self.resolve(target.expect("a schema that was generated holds what it names"));
        }
        let alternatives = rule.get("anyOf").and_then(Json::as_array);
        let present = alternatives.and_then(|all| all.iter().find(|one| !is(one, "null")));
        present.map_or_else(|| rule.clone(), |rule| self.resolve(rule))
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

fn unknown(name: &str, known: Option<&Map<String, Json>>) -> String {
    let names: Vec<&str> = known
        .into_iter()
        .flat_map(Map::keys)
        .map(String::as_str)
        .collect();
    format!("unknown key '{name}'; known here are {}", names.join(", "))
}

/// Whether a rule takes values of that JSON type.
fn is(rule: &Json, name: &str) -> bool {
    match rule.get("type") {
        Some(Json::String(only)) => only == name,
        Some(Json::Array(several)) => several.iter().any(|one| one == name),
        _ => name == "string" && choices(rule).is_some(),
    }
}

/// The texts that a rule takes, where it takes no others.
fn choices(rule: &Json) -> Option<Vec<&str>> {
    if let Some(all) = rule.get("enum").and_then(Json::as_array) {
        return Some(all.iter().filter_map(Json::as_str).collect());
    }
    let all = rule.get("oneOf").and_then(Json::as_array)?;
    let texts = all.iter().flat_map(|one| {
        let several = one.get("enum").and_then(Json::as_array);
        let only = one.get("const");
        several.into_iter().flatten().chain(only)
    });
    Some(texts.filter_map(Json::as_str).collect())
}

fn wanted(rule: &Json) -> &'static str {
    let kinds = [
        ("object", "an object"),
        ("array", "a list"),
        ("boolean", "true or false"),
        ("integer", "a whole number"),
    ];
    let kind = kinds.iter().find(|(name, _)| is(rule, name));
    kind.map_or("text", |(_, words)| words)
}
