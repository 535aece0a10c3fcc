//! Keys that older recipes have under another name.

use crate::{Error, Result};

/// Keys of older recipes, and what they are called now.
const RENAMED: [(&str, &str); 6] = [
    ("data.train_json", "data.train_annotations"),
    ("data.val_json", "data.val_annotations"),
    ("data.voc.boxes", "data.read.boxes"),
    ("data.voc.difficult", "data.read.difficult"),
    ("data.voc.classes", "data.read.classes"),
    ("data.voc", "data.read"),
];

/// Names the new key where a recipe has an old one.
pub(super) fn refuse_renamed(table: &toml::Table) -> Result<()> {
    for (old, new) in RENAMED {
        let mut keys = old.split('.');
        let first = keys.next().and_then(|key| table.get(key));
        if keys.try_fold(first, |at, key| Some(at?.as_table()?.get(key))).flatten().is_some() {
            return Err(Error::Recipe(format!("`{old}` is called `{new}` now")));
        }
    }
    if table.get("data").and_then(|d| d.get("checks")).and_then(|c| c.get("duplicate_id")).is_some() {
        return Err(Error::Recipe(
            "`data.checks.duplicate_id` is gone: annotations are numbered anew, and two images with one id are an error".to_owned(),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_key_names_the_new_one() {
        for (old, new) in RENAMED {
            let table: toml::Table = format!("{old} = 1\n").parse().unwrap();
            let message = refuse_renamed(&table).unwrap_err().to_string();
            assert!(message.contains(&format!("`{old}`")) && message.contains(&format!("`{new}`")), "{message}");
        }
        let gone: toml::Table = "data.checks.duplicate_id = \"drop\"".parse().unwrap();
        assert!(refuse_renamed(&gone).unwrap_err().to_string().contains("duplicate_id"));
        assert!(refuse_renamed(&"data.read.boxes = \"edges\"".parse().unwrap()).is_ok());
    }
}
