//! The JSON schema of the configuration: what editors complete by, and what a file is held against.
//!
//! In: the types of `raw`. Out: a schema of draft 2020-12. Never: says more than those types.

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::raw::RawConfig;

/// The schema as a tree.
#[must_use]
pub fn tree() -> Value {
    let settings = SchemaSettings::draft2020_12();
    let schema = settings
        .into_generator()
        .into_root_schema_for::<RawConfig>();
    schema.to_value()
}

/// The schema as the text of `docs/tapline.schema.json`.
#[must_use]
pub fn text() -> String {
    let mut text =
        serde_json::to_string_pretty(&tree()).expect("a tree of texts and numbers is always JSON");
    text.push('\n');
    text
}
