//! Settings in the notes of the golden files, which keep the names of docent's first edition.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::common::Golden;

/// First edition's name, today's name.
const RENAMED: [(&str, &str); 3] =
    [("adapt", "adaptation_layer"), ("tap", "feature_source"), ("share", "proposal_source")];

/// The settings of a variant.
pub fn settings<T: DeserializeOwned>(golden: &Golden, variant: &str) -> T {
    let mut note: Map<String, Value> = golden.note(&format!("config {variant}")).as_object().unwrap().clone();
    for (old, new) in RENAMED {
        if let Some(value) = note.remove(old) {
            note.insert(new.to_owned(), value);
        }
    }
    serde_json::from_value(Value::Object(note)).unwrap()
}
