//! Studies of docent's detectors: recipes, runs, ablations, suggested recipes and reports.
//!
//! A [`recipe::Recipe`] is one experiment in one TOML file. [`study::run`] makes it: an ordered set of runs (the teacher, the
//! student alone, the distilled student) that share data, seed and first weights, each in a folder of its own. A stopped program goes
//! on in that folder with the same bits. What a recipe may name, the caller's [`Registry`] says.
//!
//! # Example
//! A shipped recipe with one field changed. [`study::run`] needs no more than this, a folder and a writer of events.
//!
//! ```
//! use docent_study::recipe::{Recipe, text_of};
//!
//! let recipe = Recipe::parse(&text_of("shapes")?, &["train.epochs=2".to_owned()])?;
//! assert_eq!(recipe.train.epochs, 2);
//! // Defaults are written out (features that are off are not), and the text is the same experiment.
//! let text = recipe.to_toml()?;
//! assert!(text.contains("warmup_start = 0.001"));
//! assert_eq!(Recipe::parse(&text, &[])?, recipe);
//! # Ok::<(), docent_study::Error>(())
//! ```

pub mod ablate;
pub mod budget;
pub mod build;
pub mod data;
pub mod dry_run;
pub mod jsonl;
pub mod lock;
pub mod manifest;
pub mod recipe;
pub mod report;
pub mod run;
pub mod study;
pub mod suggest;
pub mod summary;
pub mod tensorboard;

mod error;
mod holder;
mod recipe_check;
mod recipe_identity;
mod registry;
mod timed_runs;

pub use error::{Error, Result};
pub use holder::Holder;
pub use registry::Registry;
