//! Where a set of tensors differs from what a model asks for.

use std::collections::BTreeMap;
use std::fmt;

use candle_core::Tensor;

/// Where a set of tensors differs from what a model asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StrictReport {
    /// The model asks for these; the file lacks them.
    pub missing: Vec<String>,
    /// The file has these; the model never asks.
    pub unexpected: Vec<String>,
    /// Name, the model's shape, the file's shape.
    pub wrong_shape: Vec<(String, Vec<usize>, Vec<usize>)>,
}

impl StrictReport {
    /// Compares names and shapes; every list is in name order.
    pub fn compare(model: &BTreeMap<String, Vec<usize>>, file: &BTreeMap<String, Tensor>) -> Self {
        let mut report = Self::default();
        for (name, shape) in model {
            match file.get(name) {
                None => report.missing.push(name.clone()),
                Some(t) if t.dims() != shape.as_slice() => {
                    report.wrong_shape.push((name.clone(), shape.clone(), t.dims().to_vec()));
                }
                Some(_) => {}
            }
        }
        report.unexpected = file.keys().filter(|n| !model.contains_key(*n)).cloned().collect();
        report
    }

    /// Does everything fit?
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.wrong_shape.is_empty()
    }

    /// The report without the missing and unexpected names that `f` accepts; a wrong shape always stays.
    ///
    /// Typical: `num_batches_tracked`, which counts steps and which frozen or stripped files lack.
    #[must_use]
    pub fn tolerating(mut self, f: impl Fn(&str) -> bool) -> Self {
        self.missing.retain(|n| !f(n));
        self.unexpected.retain(|n| !f(n));
        self
    }
}

impl fmt::Display for StrictReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("every name and shape fits");
        }
        let wrong =
            self.wrong_shape.iter().map(|(n, model, file)| format!("{n} (model {model:?}, file {file:?})")).collect();
        let lists = [("missing", &self.missing), ("unexpected", &self.unexpected), ("wrongly shaped", &wrong)];
        for (i, (what, names)) in lists.into_iter().filter(|(_, names)| !names.is_empty()).enumerate() {
            let newline = if i == 0 { "" } else { "\n" };
            write!(f, "{newline}  {what} ({}): {}", names.len(), names.join(", "))?;
        }
        Ok(())
    }
}
