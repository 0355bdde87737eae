//! The few expressions of an ARM template that can be read without Azure.
//!
//! In: a value of the template. Out: the value it stands for, or why it cannot be known.
//! Never: guesses; follows a circle of references.
//!
//! Read: literals, `[parameters('x')]` with a default, `[variables('x')]`, and `concat` of
//! those; of a `resourceId` what it ends in, the type and the name.

use super::text::{Node, Object, Value};

/// How far a chain of references may go; a longer one is a circle.
const REFERENCES_MAX: u32 = 16;

/// The names that an expression may refer to.
pub(crate) struct Names<'a> {
    pub(crate) parameters: Option<Object<'a>>,
    pub(crate) variables: Option<Object<'a>>,
}

/// What a value stands for.
#[derive(Clone, Debug)]
pub(crate) enum Resolved<'a> {
    Text(String),
    Node(&'a Node),
}

impl<'a> Names<'a> {
    /// The value that a node stands for.
    pub(crate) fn resolve(&self, node: &'a Node) -> Result<Resolved<'a>, String> {
        self.resolve_at(node, 0)
    }

    fn resolve_at(&self, node: &'a Node, depth: u32) -> Result<Resolved<'a>, String> {
        let Value::Text(text) = &node.value else {
            return Ok(Resolved::Node(node));
        };
        let Some(body) = text
            .strip_prefix('[')
            .and_then(|text| text.strip_suffix(']'))
        else {
            return Ok(Resolved::Text(text.clone()));
        };
        if let Some(literal) = text.strip_prefix("[[") {
            return Ok(Resolved::Text(format!("[{literal}")));
        }
        if depth >= REFERENCES_MAX {
            return Err(format!("'{text}' refers to itself"));
        }
        let (resolved, rest) = self.call(body.trim(), depth)?;
        if rest.trim().is_empty() {
            Ok(resolved)
        } else {
            Err(unreadable(text))
        }
    }

    /// One argument at the start of `text`, and what follows it.
    fn call<'t>(&self, text: &'t str, depth: u32) -> Result<(Resolved<'a>, &'t str), String> {
        if depth > REFERENCES_MAX {
            return Err(unreadable(text));
        }
        if let Some(literal) = text.strip_prefix('\'') {
            let (literal, rest) = literal.split_once('\'').ok_or_else(|| unreadable(text))?;
            return Ok((Resolved::Text(literal.to_owned()), rest));
        }
        let (function, mut rest) = text.split_once('(').ok_or_else(|| unreadable(text))?;
        let mut arguments = Vec::new();
        loop {
            let (argument, after) = self.call(rest.trim_start(), depth + 1)?;
            let Resolved::Text(argument) = argument else {
                return Err(unreadable(text));
            };
            arguments.push(argument);
            let after = after.trim_start();
            if let Some(after) = after.strip_prefix(',') {
                rest = after;
            } else {
                rest = after.strip_prefix(')').ok_or_else(|| unreadable(text))?;
                break;
            }
        }
        let function = function.trim().to_ascii_lowercase();
        let resolved = match (function.as_str(), arguments.as_slice()) {
            ("parameters", [name]) => self.parameter(name, depth)?,
            ("variables", [name]) => self.variable(name, depth)?,
            ("concat", parts) => Resolved::Text(parts.concat()),
            // Subscription and resource group are Azure's to fill in, and nobody here asks.
            ("resourceid", parts) => Resolved::Text(parts.join("/")),
            _ => return Err(unreadable(text)),
        };
        Ok((resolved, rest))
    }

    fn parameter(&self, name: &str, depth: u32) -> Result<Resolved<'a>, String> {
        let declared = self.parameters.as_ref().and_then(|names| names.find(name));
        let Some((
            Node {
                value: Value::Object(members),
                ..
            },
            place,
        )) = declared
        else {
            return Err(format!("the template declares no parameter '{name}'"));
        };
        let parameter = Object { members, place };
        match parameter.find("defaultValue") {
            Some((node, _)) => self.resolve_at(node, depth + 1),
            None => Err(format!("parameter '{name}' has no defaultValue")),
        }
    }

    fn variable(&self, name: &str, depth: u32) -> Result<Resolved<'a>, String> {
        match self.variables.as_ref().and_then(|names| names.find(name)) {
            Some((node, _)) => self.resolve_at(node, depth + 1),
            None => Err(format!("the template declares no variable '{name}'")),
        }
    }
}

fn unreadable(text: &str) -> String {
    format!(
        "cannot read the expression '{text}': Tapline reads literals, parameters with a \
         defaultValue, variables, and concat or resourceId of those"
    )
}
