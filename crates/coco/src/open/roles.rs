//! Which part of a split a file or folder is, by its name.

use std::fmt;

/// A part of a data set, as authors name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Role {
    Train,
    Val,
    Test,
    /// Training and validation images together.
    TrainVal,
}

impl Role {
    /// The role that one word means, in any case of letters.
    pub fn of_word(word: &str) -> Option<Self> {
        let word = word.to_lowercase();
        let word = ["mini", "tiny", "small"].iter().find_map(|p| word.strip_prefix(p)).unwrap_or(&word);
        let word = ["set", "split", "data"].iter().find_map(|s| word.strip_suffix(s)).unwrap_or(word);
        match word {
            "train" | "training" | "trn" => Some(Self::Train),
            "val" | "valid" | "validation" | "validate" | "dev" | "eval" | "evaluation" | "holdout" | "heldout" => {
                Some(Self::Val)
            }
            "test" | "testing" | "tst" => Some(Self::Test),
            "trainval" | "trainvalid" => Some(Self::TrainVal),
            _ => None,
        }
    }

    /// The role that a file's or folder's name tells: one of its words (runs of letters, split where an upper-case letter follows a
    /// lower-case one) means it, and no other word means another.
    pub fn of_name(name: &str) -> Option<Self> {
        let mut found = None;
        for word in words(name) {
            match (Self::of_word(&word), found) {
                (Some(role), None) => found = Some(role),
                (Some(role), Some(before)) if role != before => return None,
                _ => {}
            }
        }
        found
    }

    /// The role of a list of images, by its name: `train`, `val2017`, `train_list`, `2007_test`. `cat_train` is the list of one class.
    pub fn of_list(name: &str) -> Option<Self> {
        const OTHERS: [&str; 12] =
            ["list", "split", "images", "image", "img", "files", "file", "names", "set", "ids", "index", "data"];
        let words = words(name);
        let plain = words
            .iter()
            .all(|w| Self::of_word(w).is_some() || OTHERS.contains(&w.to_lowercase().as_str()) || w.is_empty());
        if plain { Self::of_name(name) } else { None }
    }

    /// The role of a folder's path below the data folder, by the innermost name that tells one.
    pub fn of_folder(folder: &str) -> Option<Self> {
        folder.rsplit('/').find_map(Self::of_name)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Train => "train",
            Self::Val => "val",
            Self::Test => "test",
            Self::TrainVal => "trainval",
        })
    }
}

/// Runs of letters: `Instances_valTwo2017` is `Instances`, `val`, `Two`.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut lower_before = false;
    for c in name.chars() {
        let ends = !c.is_alphabetic() || (c.is_uppercase() && lower_before);
        if ends && words.last().is_some_and(|w| !w.is_empty()) {
            words.push(String::new());
        }
        if let (true, Some(word)) = (c.is_alphabetic(), words.last_mut()) {
            word.push(c);
        }
        lower_before = c.is_lowercase();
    }
    words
}

/// What each part is for: the author's training and held-out parts, and what is left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parts<T> {
    /// What is trained on; `None`: all that is in no other part.
    pub train: Option<T>,
    /// What is held out; `None`: a share of `train`.
    pub val: Option<T>,
    /// A line about a part that is used for another purpose, or not at all.
    pub notes: Vec<String>,
}

/// Assigns the parts that are there: `train` and `val` win; without `val`, `test` is held out, and `trainval` trains where it is there.
pub(crate) fn assign<T>(mut part: impl FnMut(Role) -> Option<T>) -> Parts<T> {
    let (train, val) = (part(Role::Train), part(Role::Val));
    let (test, both) = (part(Role::Test), part(Role::TrainVal));
    let mut notes: Vec<&str> = Vec::new();
    let held_out = val.is_some() || test.is_some();
    match (val.is_some(), test.is_some()) {
        (true, true) => notes.push("the test part is left alone: the val part is held out"),
        (false, true) => notes.push("there is no val part: the test part is held out"),
        _ => {}
    }
    match (train.is_some(), both.is_some()) {
        (false, false) if held_out => {
            notes.push("there is no train part: all images that are in no other part are trained on");
        }
        (true, true) if val.is_some() => notes.push("the trainval part is not used: train and val are there"),
        (true, true) if test.is_some() => {
            notes.push("the trainval part trains, and the train part in it is not used by itself");
        }
        (true, true) => notes.push("there is no val part: trainval without train is held out"),
        _ => {}
    }
    // Beside test, trainval is what trains; beside val, the caller takes val out of it.
    let train = if val.is_none() && test.is_some() { both.or(train) } else { train.or(both) };
    Parts { train, val: val.or(test), notes: notes.into_iter().map(str::to_owned).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_roles() {
        for (name, role) in [
            ("train", Some(Role::Train)),
            ("Training", Some(Role::Train)),
            ("instances_train2017", Some(Role::Train)),
            ("instances_Validation", Some(Role::Val)),
            ("minival2014", Some(Role::Val)),
            ("valid", Some(Role::Val)),
            ("my_test", Some(Role::Test)),
            ("TestSet", Some(Role::Test)),
            ("trainval", Some(Role::TrainVal)),
            ("strain", None),
            ("latest", None),
            ("values", None),
            ("interval", None),
            ("train_val", None),
            ("images", None),
            ("", None),
        ] {
            assert_eq!(Role::of_name(name), role, "{name}");
        }
        assert_eq!(Role::of_folder("Test/part_val/images"), Some(Role::Val));
        assert_eq!(Role::of_folder("data/images"), None);
    }

    #[test]
    fn train_and_val_win_and_test_is_held_out_without_val() {
        use Role::{Test, Train, TrainVal, Val};
        let assigned = |there: &[Role]| {
            let parts = assign(|role| there.contains(&role).then_some(role));
            (parts.train, parts.val)
        };
        assert_eq!(assigned(&[Train, Val, Test, TrainVal]), (Some(Train), Some(Val)));
        assert_eq!(assigned(&[Train, Test]), (Some(Train), Some(Test)));
        assert_eq!(assigned(&[TrainVal, Test]), (Some(TrainVal), Some(Test)));
        assert_eq!(assigned(&[Train, TrainVal, Test]), (Some(TrainVal), Some(Test)));
        assert_eq!(assigned(&[Val]), (None, Some(Val)));
        assert_eq!(assigned(&[Test]), (None, Some(Test)));
        assert_eq!(assigned(&[Train]), (Some(Train), None));
        assert_eq!(assigned(&[]), (None, None));
    }
}
