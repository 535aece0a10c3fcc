//! Range checks of configuration fields: the nearest allowed values stand in the message.

use crate::{Error, Result};

/// The widest backbone, by its width multiplier: a damaged file must not ask for more memory than there is.
pub(crate) const MAX_WIDTH: f64 = 16.0;

/// What is added to a variance: a finite number from 0.
pub(crate) fn norm_eps(value: f64) -> Result<()> {
    if value.is_finite() && value >= 0.0 {
        return Ok(());
    }
    let message = format!("{value} is not a finite number from 0; the nearest allowed value is 0");
    Err(Error::config("backbone.norm_eps", message))
}

pub(crate) fn at_least(field: &'static str, value: usize, least: usize) -> Result<()> {
    between(field, value, least, usize::MAX)
}

/// Sizes have a bound, so that a damaged file cannot ask for more memory than there is.
pub(crate) fn between(field: &'static str, value: usize, least: usize, most: usize) -> Result<()> {
    let (side, nearest) = match value {
        v if v < least => ("small", least),
        v if v > most => ("large", most),
        _ => return Ok(()),
    };
    Err(Error::config(field, format!("{value} is too {side}; the nearest allowed value is {nearest}")))
}

/// `value` must be finite and within `[lo, hi]`.
pub(crate) fn within(field: &'static str, value: f64, lo: f64, hi: f64) -> Result<()> {
    if value.is_nan() {
        return Err(Error::config(field, format!("is not a number; give one from {lo} to {hi}")));
    }
    if value < lo || value > hi {
        return Err(Error::config(
            field,
            format!("{value} is outside {lo} to {hi}; the nearest allowed value is {}", value.clamp(lo, hi)),
        ));
    }
    Ok(())
}

pub(crate) fn positive(field: &'static str, value: f64) -> Result<()> {
    if !(value.is_finite() && value > 0.0) {
        return Err(Error::config(field, format!("{value} is not a finite number above 0")));
    }
    Ok(())
}

pub(crate) fn thresholds(
    positive_field: &'static str,
    negative_field: &'static str,
    fg_iou_threshold: f32,
    bg_iou_threshold: f32,
) -> Result<()> {
    within(positive_field, f64::from(fg_iou_threshold), 0.0, 1.0)?;
    within(negative_field, f64::from(bg_iou_threshold), 0.0, 1.0)?;
    if bg_iou_threshold > fg_iou_threshold {
        return Err(Error::config(
            negative_field,
            format!(
                "{bg_iou_threshold} is above the positive threshold; the nearest allowed value is {fg_iou_threshold}"
            ),
        ));
    }
    Ok(())
}
