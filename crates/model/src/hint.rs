//! The name that was probably meant.

/// Adds "did you mean" to serde's message about an unknown field.
pub fn with_hint(message: &str) -> String {
    let mut names = message.split('`').skip(1).step_by(2);
    let hint = match (message.contains("unknown field") || message.contains("unknown variant"), names.next()) {
        (true, Some(given)) => nearest(given, names),
        _ => String::new(),
    };
    format!("{}{hint}", message.trim_end())
}

/// ` (did you mean 'x'?)` for the known name nearest to `given`, or nothing where none is near.
pub fn nearest<'a>(given: &str, known: impl Iterator<Item = &'a str>) -> String {
    known
        .map(|k| (strsim::damerau_levenshtein(given, k), k))
        .min()
        .filter(|(distance, _)| *distance <= 4)
        .map(|(_, k)| format!(" (did you mean '{k}'?)"))
        .unwrap_or_default()
}
