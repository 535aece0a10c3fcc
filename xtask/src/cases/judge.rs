//! Judging an input: it opens, it is refused, or it opens in a way that the refusal names.

use regex::Captures;

use super::compare::{Sides, base_name, content};
use super::expect::{Expectation, FlagNamed, Outcome, RefusedBy};
use super::fault::Fault;
use super::program::{Reading, gist};

/// Reads the input in the expectation's format and with its flags.
pub type Read<'a> = dyn Fn(&str, &[String]) -> Result<Reading, Fault> + 'a;

/// One of the allowed behaviours must fit. Where none does, the first one's fault is told if it is silent, or else each.
pub fn judge_any(read: &Read, any_of: &[Expectation]) -> Result<(), Fault> {
    let mut faults = Vec::new();
    for expected in any_of {
        match judge(read, expected) {
            Ok(()) => return Ok(()),
            Err(fault @ (Fault::NoCoco(_) | Fault::Failed(_))) => return Err(fault),
            Err(fault) => faults.push(fault),
        }
    }
    if faults.len() == 1 || faults[0].is_silent() {
        return Err(faults.swap_remove(0));
    }
    Err(Fault::Wrong(faults.iter().map(Fault::to_string).collect::<Vec<_>>().join(" | or: ")))
}

/// Whether docent does what one expectation says.
fn judge(read: &Read, expected: &Expectation) -> Result<(), Fault> {
    let flags = expected.flags();
    let reading = read(&expected.format, flags)?;
    if expected.outcome == Outcome::Opens {
        must_open(&reading, expected)?;
        if expected.flags.is_some() {
            // It opens without them too; VOC's other reading is one pixel off.
            let bare = Expectation { flags: None, tolerance: 1.0, ..expected.clone() };
            must_open(&read(&bare.format, &[])?, &bare)?;
        }
        return Ok(());
    }
    must_refuse(&reading, expected)?;
    for opening in &expected.openings {
        let opened = &opening.expectation;
        let Some(named) = &opening.flag_named else {
            must_open(&read(&opened.format, opened.flags())?, opened)?;
            continue;
        };
        let named = flags_named(named, &reading.text);
        if named.is_empty() {
            return Err(wrong(format!("the message names no flag: {}", gist(&reading.text))));
        }
        open_with_one(read, opened, flags, &named)?;
    }
    Ok(())
}

/// One of the flags in `named`, added to `flags`, must open the input. Where none does, the first one's fault is told.
fn open_with_one(read: &Read, opened: &Expectation, flags: &[String], named: &[Vec<String>]) -> Result<(), Fault> {
    let mut first = None;
    for added in named {
        let expected = Expectation { flags: Some([flags, added].concat()), ..opened.clone() };
        let reading = read(&expected.format, expected.flags());
        match reading.and_then(|reading| must_open(&reading, &expected)) {
            Ok(()) => return Ok(()),
            Err(fault @ (Fault::NoCoco(_) | Fault::Failed(_))) => return Err(fault),
            Err(fault) => {
                first.get_or_insert(wrong(format!("with {}, which the message names: {fault}", added.join(" "))));
            }
        }
    }
    first.map_or(Ok(()), Err)
}

fn must_open(reading: &Reading, expected: &Expectation) -> Result<(), Fault> {
    if reading.code != 0 {
        let flags = expected.flags();
        let with = if flags.is_empty() { String::new() } else { format!(" with {}", flags.join(" ")) };
        return Err(wrong(format!("refused{with}: {}", gist(&reading.text))));
    }
    content(reading, expected, false)?;
    if reading.check.is_some_and(|code| code != 0) {
        return Err(wrong(format!("`dataset check` refuses what is read: {}", gist(&reading.text))));
    }
    for group in &expected.notes_contain {
        if !lines(&reading.text).any(|line| group.iter().all(|pattern| pattern.is_in(line))) {
            let patterns: Vec<&str> = group.iter().map(|pattern| pattern.0.as_str()).collect();
            return Err(wrong(format!("read correctly, but no line says it: {}", patterns.join(" + "))));
        }
    }
    Ok(())
}

fn must_refuse(reading: &Reading, expected: &Expectation) -> Result<(), Fault> {
    if expected.refused_by == Some(RefusedBy::Check) {
        if reading.check == Some(0) {
            return Err(Fault::Silent("`dataset check` ends with exit code 0, should refuse".to_owned()));
        }
        if reading.code == 0 {
            content(reading, expected, true)?;
        }
    } else if reading.code == 0 || reading.check == Some(0) {
        return Err(Fault::Silent("exit code 0, should refuse".to_owned()));
    }
    let missing: Vec<&str> = expected
        .message
        .iter()
        .filter(|pattern| !pattern.is_in(&reading.text))
        .map(|pattern| pattern.0.as_str())
        .collect();
    if !missing.is_empty() {
        return Err(wrong(format!("the message does not say {}: {}", missing.join(" or "), gist(&reading.text))));
    }
    Ok(())
}

/// The flags that a message names, in its order, without repetition.
fn flags_named(named: &FlagNamed, text: &str) -> Vec<Vec<String>> {
    let mut all: Vec<Vec<String>> = Vec::new();
    for found in named.find.0.captures_iter(text) {
        let flags: Vec<String> = named.flags.iter().map(|flag| filled(flag, &found)).collect();
        if !all.contains(&flags) {
            all.push(flags);
        }
    }
    all
}

/// `flag` with each `{N}` replaced by group N, without the punctuation that ends a sentence.
fn filled(flag: &str, found: &Captures) -> String {
    let mut text = String::new();
    let mut rest = flag;
    while let Some(at) = rest.find('{') {
        let group = rest[at + 1..].split_once('}').and_then(|(digit, after)| Some((digit.parse().ok()?, after)));
        text.push_str(&rest[..at]);
        rest = match group {
            Some((group, after)) => {
                let value = found.get(group).map_or("", |group: regex::Match| group.as_str());
                text.push_str(value.trim_end_matches(['.', ',', ';', ':']));
                after
            }
            None => {
                text.push('{');
                &rest[at + 1..]
            }
        };
    }
    text + rest
}

/// The lines of a text; a progress bar's are lines too.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split(['\n', '\r', '\x0b', '\x0c', '\x1c', '\x1d', '\x1e', '\u{85}', '\u{2028}', '\u{2029}'])
        .filter(|line| !line.is_empty())
}

/// No image that is in both readings changes sides.
pub fn judge_pair(before: (&str, &Reading), after: (&str, &Reading)) -> Result<(), Fault> {
    let (before, after) = (sides(before)?, sides(after)?);
    let common: Vec<&String> = before.keys().filter(|name| after.contains_key(*name)).collect();
    if common.is_empty() {
        return Err(Fault::Silent("the two have no image in common".to_owned()));
    }
    let moved: Vec<_> = common.iter().filter(|name| before[**name] != after[**name]).collect();
    match moved.first() {
        None => Ok(()),
        Some(name) => {
            let (moved, common) = (moved.len(), common.len());
            Err(Fault::Silent(format!("{moved} of {common} common images change sides, {name} for one")))
        }
    }
}

fn sides((key, reading): (&str, &Reading)) -> Result<Sides, Fault> {
    let Some(splits) = &reading.splits else {
        return Err(wrong(format!("{key}: {}", gist(&reading.text))));
    };
    let images =
        splits.iter().flat_map(|(split, coco)| coco.images.iter().map(move |i| (base_name(&i.file_name), split)));
    Ok(images.collect())
}

fn wrong(what: String) -> Fault {
    Fault::Wrong(what)
}
