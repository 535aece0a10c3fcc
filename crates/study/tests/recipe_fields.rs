//! docs/recipe-fields.md lists every field of a recipe, no other, and the defaults that the program has.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};

use docent_study::Registry;
use docent_study::recipe::Recipe;
use toml::Value;

/// Nothing but what has no default, and a method of distillation to be chosen.
const LEAST: &str = r#"
name = "least"
[data]
[data.resize]
[train]
epochs = 1
batch = 1
lr = 0.1
reference_batch = 1
[student.model]
[teacher.model]
[distill]
adaptation_layer = "conv3x3"
"#;

/// The fields that serde knows at a place, from its own refusal of one that it does not know.
fn expected(assignments: &[String]) -> Vec<String> {
    let Err(error) = Recipe::parse(LEAST, assignments) else { panic!("{assignments:?} was taken") };
    let message = error.to_string();
    let Some((_, rest)) = message.split_once("unknown field `__probe`, expected ") else {
        return Vec::new();
    };
    let known = rest.split(['\n', '(']).next().unwrap();
    known.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Adds every field below `at` as a path; tables in a list are `key[].field`. Is there any?
fn fields(at: &str, method: &str, found: &mut BTreeSet<String>) -> bool {
    let chosen = format!("distill.method={method}");
    let dot = |key: &str| if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") };
    let keys = expected(&[chosen.clone(), format!("{}=1", dot("__probe"))]);
    for key in &keys {
        let path = dot(key);
        if fields(&path, method, found) {
            continue;
        }
        // Serde takes a list for a struct too, so lists are looked into only where there is no table.
        let listed = expected(&[chosen.clone(), format!("{path}=[{{ __probe = 1 }}]")]);
        if listed.is_empty() {
            found.insert(if at == "distill" { format!("distill({method}).{key}") } else { path });
        } else {
            found.extend(listed.iter().map(|field| format!("{path}[].{field}")));
        }
    }
    !keys.is_empty()
}

/// Keys whose value names an entry of the registry, so that serde refuses none.
const NAMES: [&str; 5] = [
    "distill.method",
    "student.model.architecture",
    "student.model.backbone.architecture",
    "teacher.model.architecture",
    "teacher.model.backbone.architecture",
];

/// The registry's methods, from its refusal of one that it does not hold.
fn methods() -> Vec<String> {
    let recipe = Recipe::parse(LEAST, &["distill.method=__probe".to_owned()]).unwrap();
    let message = recipe.check(&Registry::builtin()).unwrap_err().to_string();
    message.split_once("known are ").unwrap().1.split(", ").map(str::to_owned).collect()
}

fn known() -> BTreeSet<String> {
    let mut found = NAMES.map(str::to_owned).into();
    let methods = methods();
    assert!(methods.contains(&"task_adaptive".to_owned()), "{methods:?}");
    for method in methods {
        fields("", &method, &mut found);
    }
    found
}

/// Path to the default's cell.
fn documented() -> BTreeMap<String, String> {
    let page = include_str!("../../../docs/recipe-fields.md");
    let mut prefixes = vec![String::new()];
    let mut rows = BTreeMap::new();
    for line in page.lines() {
        if let Some(heading) = line.strip_prefix("## ").or_else(|| line.strip_prefix("### ")) {
            let quoted: Vec<&str> = heading.split('`').skip(1).step_by(2).collect();
            let method = quoted.iter().find_map(|q| q.strip_prefix("method = ")).map(|m| m.trim_matches('"'));
            let tables = quoted.iter().filter(|q| q.starts_with('['));
            prefixes = tables
                .map(|q| match (q.strip_prefix("[["), method) {
                    (Some(list), _) => format!("{}[].", list.trim_end_matches(']')),
                    (None, Some(method)) => format!("{}({method}).", q.trim_matches(['[', ']'])),
                    (None, None) => format!("{}.", q.trim_matches(['[', ']'])),
                })
                .collect();
            if prefixes.is_empty() {
                prefixes.push(String::new());
            }
        } else if let Some(row) = line.strip_prefix("| `") {
            let (key, rest) = row.split_once('`').unwrap();
            let cells: Vec<&str> = rest.split(" | ").map(str::trim).collect();
            assert_eq!(cells.len(), 4, "{line}");
            for prefix in &prefixes {
                let before = rows.insert(format!("{prefix}{key}"), cells[2].to_owned());
                assert!(before.is_none(), "{prefix}{key} stands there twice");
            }
        }
    }
    rows
}

/// Rows that only name a table whose fields are listed below.
const TABLES: [&str; 3] = ["student.model", "student.init", "train.groups"];

#[test]
fn the_page_lists_every_field_and_no_other() {
    let (known, documented) = (known(), documented());
    assert!(known.len() > 150, "{known:?}");
    let missing: Vec<&String> = known.iter().filter(|path| !documented.contains_key(*path)).collect();
    assert!(missing.is_empty(), "docs/recipe-fields.md lacks {missing:#?}");
    let strange: Vec<&String> =
        documented.keys().filter(|path| !known.contains(*path) && !TABLES.contains(&path.as_str())).collect();
    assert!(strange.is_empty(), "docs/recipe-fields.md has what no recipe knows: {strange:#?}");
}

#[test]
fn the_page_has_the_defaults_of_the_program() {
    let documented = documented();
    let mut compared = 0;
    for method in methods() {
        // A method's own default of `adaptation_layer` is wanted; where it is none, both models have the same channels.
        let least = LEAST.replace("adaptation_layer = \"conv3x3\"\n", "");
        let recipe = Recipe::parse(&least, &[format!("distill.method={method}")]).unwrap();
        let resolved: Value = recipe.to_toml().unwrap().parse::<toml::Table>().unwrap().into();
        let mut leaves = Vec::new();
        collect("", &resolved, &mut leaves);
        for (path, value) in leaves {
            let path = match path.strip_prefix("distill.") {
                Some(key) if key != "method" => format!("distill({method}).{key}"),
                _ => path,
            };
            let cell = &documented[&path];
            if cell == "*required*" || path == "distill.method" {
                continue;
            }
            let quoted = cell.strip_prefix('`').and_then(|c| c.strip_suffix('`'));
            let quoted = quoted.unwrap_or_else(|| panic!("{path}: the resolved recipe has {value}, the page {cell}"));
            let page: toml::Table = format!("v = {quoted}").parse().unwrap_or_else(|e| panic!("{path}: {quoted}: {e}"));
            assert!(same(&page["v"], &value), "{path}: the program's default is {value}, the page's {quoted}");
            compared += 1;
        }
    }
    assert!(compared > 300, "{compared}");
}

fn collect(at: &str, value: &Value, leaves: &mut Vec<(String, Value)>) {
    match value {
        Value::Table(table) => {
            for (key, value) in table {
                collect(&if at.is_empty() { key.clone() } else { format!("{at}.{key}") }, value, leaves);
            }
        }
        other => leaves.push((at.to_owned(), other.clone())),
    }
}

/// Equal, f32's rounding apart.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => (a - b).abs() <= 1e-6 * b.abs().max(1e-3),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        _ => a == b,
    }
}
