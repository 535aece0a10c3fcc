//! What must hold for any bytes that docent-study reads. The fuzz target calls it, and so does a test, with every seed.

use docent_study::recipe::Recipe;

/// A recipe, with a `--set` in its last line: refused, or one that reads back the same.
pub fn recipe(text: &str) {
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
    let toml = |recipe: &Recipe| recipe.to_toml().unwrap_or_else(|e| panic!("a recipe has a TOML form: {e}"));
    let written = toml(&recipe);
    let back = Recipe::parse(&written, &[]).unwrap_or_else(|e| panic!("{e}\n{written}"));
    assert_eq!(toml(&back), written);
}
