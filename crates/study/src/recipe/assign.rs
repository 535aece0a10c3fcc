//! Assignments to a recipe's fields (`--set a.b=c`).

use crate::error::{Error, Result};

/// Sets `a.b=c` in `table`; `c` is read as TOML, and as a string where that fails.
pub(crate) fn assign(table: &mut toml::Table, assignment: &str) -> Result<()> {
    let bad = |why: &str| Error::Recipe(format!("--set {assignment}: {why}"));
    let (path, value) = assignment.split_once('=').ok_or_else(|| bad("write it as key.subkey=value"))?;
    let value = format!("v = {value}")
        .parse::<toml::Table>()
        .ok()
        .and_then(|mut t| t.remove("v"))
        .unwrap_or_else(|| toml::Value::String(value.to_owned()));
    let mut keys: Vec<&str> = path.trim().split('.').collect();
    let last = keys.pop().filter(|k| !k.is_empty()).ok_or_else(|| bad("the key is empty"))?;
    let mut at = table;
    for key in keys {
        at = at
            .entry(key)
            .or_insert_with(|| toml::Value::Table(toml::Table::new()))
            .as_table_mut()
            .ok_or_else(|| bad(&format!("'{key}' is a value, not a table")))?;
    }
    at.insert(last.to_owned(), value);
    Ok(())
}
