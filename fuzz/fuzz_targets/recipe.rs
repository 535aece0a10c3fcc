//! A recipe of any text, with a `--set` in its last line: refused, or one that reads back the same.
#![no_main]

use docent_train::recipe::Recipe;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (text, set) = match text.rsplit_once("\n--set ") {
        Some((text, assignment)) => (text, vec![assignment.to_owned()]),
        None => (text, Vec::new()),
    };
    let recipe = match Recipe::parse(text, &set) {
        Ok(recipe) => recipe,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    let written = recipe.to_toml().expect("a recipe has a TOML form");
    let back = Recipe::parse(&written, &[]).unwrap_or_else(|e| panic!("{e}\n{written}"));
    assert_eq!(back.to_toml().expect("a recipe has a TOML form"), written);
});
