//! `docent recipe`: the shipped experiments.

use crate::output::{print, say};
use anyhow::{Context, Result};
use docent_study::Registry;
use docent_study::recipe::{Recipe, shipped, text_of};

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  docent recipe list\n  docent recipe show shapes > mine.toml")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// List the shipped recipes.
    #[command(after_help = "Example: docent recipe list")]
    List,
    /// Print a recipe's TOML.
    #[command(
        after_help = "Examples:\n  docent recipe show shapes > mine.toml\n  docent recipe show mine.toml --resolved"
    )]
    Show {
        /// A shipped recipe, or a file.
        recipe: String,
        /// Write every default out.
        #[arg(long)]
        resolved: bool,
    },
}

/// Lists or prints.
pub fn run(args: &Args, registry: &Registry) -> Result<()> {
    match &args.command {
        Command::List => {
            for (name, text) in shipped() {
                say!("{name:<14} {}", Recipe::parse(text, &[])?.about);
            }
        }
        Command::Show { recipe, resolved } => {
            let text = text_of(recipe)?;
            let parsed = Recipe::parse(&text, &[]).with_context(|| recipe.clone())?;
            parsed.check(registry).with_context(|| recipe.clone())?;
            print(format_args!("{}", if *resolved { parsed.to_toml()? } else { text }));
        }
    }
    Ok(())
}
