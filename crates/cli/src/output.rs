//! Printing that a full disk or a lost terminal does not end the work: `println!` would panic there. What could not be written is
//! remembered, and the program ends with an error in place of success.

use std::fmt::Arguments;
use std::io::{Error, Write};
use std::sync::OnceLock;

static FAULT: OnceLock<Error> = OnceLock::new();

/// Prints to standard output; [`fault`] tells if that failed.
pub fn print(text: Arguments<'_>) {
    if let Err(error) = std::io::stdout().write_fmt(text) {
        let _ = FAULT.set(error);
    }
}

/// Prints to standard error. Where that fails, there is nobody to tell.
pub fn print_error(text: Arguments<'_>) {
    let _ = std::io::stderr().write_fmt(text);
}

/// Why something could not be printed to standard output, if so.
pub fn fault() -> Option<&'static Error> {
    if let Err(error) = std::io::stdout().flush() {
        let _ = FAULT.set(error);
    }
    FAULT.get()
}

/// An error with what it comes from, each said once: many of our messages hold their source's words already.
pub fn error_text(error: &anyhow::Error) -> String {
    error.chain().skip(1).fold(error.to_string(), |text, source| {
        let source = source.to_string();
        if text.contains(&source) { text } else { format!("{text}: {source}") }
    })
}

/// [`print()`] with a line's end.
macro_rules! say {
    () => { $crate::output::print(format_args!("\n")) };
    ($($text:tt)*) => { $crate::output::print(format_args!("{}\n", format_args!($($text)*))) };
}

/// [`print_error`] with a line's end.
macro_rules! tell {
    ($($text:tt)*) => { $crate::output::print_error(format_args!("{}\n", format_args!($($text)*))) };
}

pub(crate) use {say, tell};

#[cfg(test)]
mod tests {
    #[test]
    fn what_an_error_comes_from_is_said_once() {
        let source = std::io::Error::other("the disk is wet");
        let error = anyhow::Error::new(docent_study::Error::io("a.toml".as_ref(), source)).context("cannot go on");
        assert_eq!(super::error_text(&error), "cannot go on: a.toml: the disk is wet");
    }
}
