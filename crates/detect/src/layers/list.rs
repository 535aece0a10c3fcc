//! A model's layers by name: the one description that work, freezing, running statistics and weight import read.

use std::collections::{BTreeMap, BTreeSet};

use crate::Size;

/// The last part of a count's name.
const BATCH_COUNT: &str = "num_batches_tracked";

/// What a layer is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LayerKind {
    /// A convolution with a square kernel.
    Conv2d {
        /// Input channels.
        c_in: usize,
        /// Output channels.
        c_out: usize,
        /// Side of the kernel.
        kernel: usize,
        /// Cells from one output to the next.
        stride: usize,
        /// Groups of channels; `c_in` for a depthwise convolution.
        groups: usize,
        /// Whether a bias is added.
        bias: bool,
    },
    /// A linear layer with a bias.
    Linear {
        /// Values of an input row.
        inputs: usize,
        /// Values of an output row.
        outputs: usize,
    },
    /// A BatchNorm.
    BatchNorm {
        /// Channels.
        channels: usize,
        /// Whether it is a fixed scale and shift: then all of its tensors are state, and none is a parameter.
        frozen: bool,
    },
    /// A GroupNorm.
    GroupNorm {
        /// Channels.
        channels: usize,
    },
    /// A parameter by itself, whose work is not counted.
    Parameter {
        /// Its shape.
        shape: Vec<usize>,
    },
}

/// Where a layer is applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// To maps whose cells have these sides in pixels of the padded image, one an application.
    Maps(Vec<usize>),
    /// Once to each region of interest.
    Regions,
}

/// One layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerInfo {
    /// Its path, such as `backbone.body.layer1.0.conv1`; a [`LayerKind::Parameter`]'s is the tensor's own name.
    pub name: String,
    /// What it is.
    pub kind: LayerKind,
    /// Where its inputs come from.
    pub place: Place,
    /// The freezable part of the backbone that it belongs to: 0 is the stem, 1 the first stage. None outside a backbone.
    pub stage: Option<usize>,
}

/// What a tensor is to its layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TensorRole {
    /// The weight or bias of a convolution or of a linear layer, or a parameter by itself.
    Parameter,
    /// A norm's scale or shift.
    Affine,
    /// A BatchNorm's running mean or variance.
    RunningStatistic,
    /// A BatchNorm's count of batches. Nothing reads it, and many files lack it.
    BatchCount,
}

/// One tensor of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name, such as `backbone.body.bn1.running_mean`.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// What it is.
    pub role: TensorRole,
    /// Whether it is state that no optimizer moves: running statistics, and every tensor of a frozen BatchNorm.
    pub buffer: bool,
}

impl LayerInfo {
    /// The layer's tensors by torchvision's names.
    pub fn tensors(&self) -> Vec<TensorInfo> {
        let tensor = |end: &str, shape: &[usize], role, buffer| TensorInfo {
            name: format!("{}.{end}", self.name),
            shape: shape.to_vec(),
            role,
            buffer,
        };
        match &self.kind {
            LayerKind::Conv2d { c_in, c_out, kernel, groups, bias, .. } => {
                let shape = [*c_out, c_in / groups, *kernel, *kernel];
                let mut all = vec![tensor("weight", &shape, TensorRole::Parameter, false)];
                all.extend(bias.then(|| tensor("bias", &[*c_out], TensorRole::Parameter, false)));
                all
            }
            LayerKind::Linear { inputs, outputs } => vec![
                tensor("weight", &[*outputs, *inputs], TensorRole::Parameter, false),
                tensor("bias", &[*outputs], TensorRole::Parameter, false),
            ],
            LayerKind::BatchNorm { channels, frozen } => {
                let mut all: Vec<TensorInfo> = ["weight", "bias"]
                    .map(|end| tensor(end, &[*channels], TensorRole::Affine, *frozen))
                    .into_iter()
                    .chain(
                        ["running_mean", "running_var"]
                            .map(|end| tensor(end, &[*channels], TensorRole::RunningStatistic, true)),
                    )
                    .collect();
                all.extend((!frozen).then(|| tensor(BATCH_COUNT, &[], TensorRole::BatchCount, true)));
                all
            }
            LayerKind::GroupNorm { channels } => {
                ["weight", "bias"].map(|end| tensor(end, &[*channels], TensorRole::Affine, false)).to_vec()
            }
            LayerKind::Parameter { shape } => vec![TensorInfo {
                name: self.name.clone(),
                shape: shape.clone(),
                role: TensorRole::Parameter,
                buffer: false,
            }],
        }
    }

    /// Floating point operations for one image of `size` with `regions` regions of interest.
    fn flops(&self, size: Size, regions: usize) -> u64 {
        let product = |factors: &[usize]| 2 * factors.iter().map(|&n| n as u64).product::<u64>();
        match (&self.kind, &self.place) {
            (LayerKind::Conv2d { c_in, c_out, kernel, stride, groups, .. }, Place::Maps(strides)) => strides
                .iter()
                .map(|side| {
                    let out = size.div_ceil(side * stride);
                    product(&[c_in / groups, *c_out, *kernel, *kernel, out.height, out.width])
                })
                .sum(),
            (LayerKind::Linear { inputs, outputs }, Place::Regions) => product(&[*inputs, *outputs, regions]),
            (LayerKind::Linear { inputs, outputs }, Place::Maps(_)) => product(&[*inputs, *outputs]),
            _ => 0,
        }
    }
}

/// A model's layers in the order in which they were made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LayerList(Vec<LayerInfo>);

impl LayerList {
    pub(super) fn new(layers: Vec<LayerInfo>) -> Self {
        Self(layers)
    }

    /// The layers.
    pub fn iter(&self) -> impl Iterator<Item = &LayerInfo> {
        self.0.iter()
    }

    /// The layers whose path begins with `prefix` and a point, such as `backbone.body`.
    #[must_use]
    pub fn below(&self, prefix: &str) -> Self {
        let inside = |name: &str| name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('.'));
        Self(self.0.iter().filter(|layer| inside(&layer.name)).cloned().collect())
    }

    /// Every tensor by name.
    pub fn tensors(&self) -> BTreeMap<String, TensorInfo> {
        self.0.iter().flat_map(LayerInfo::tensors).map(|tensor| (tensor.name.clone(), tensor)).collect()
    }

    /// The name that a count of batches has in each BatchNorm, frozen ones included: nothing reads it, so a file may lack it or have
    /// it without need.
    pub fn batch_counts(&self) -> BTreeSet<String> {
        let norms = self.0.iter().filter(|layer| matches!(layer.kind, LayerKind::BatchNorm { .. }));
        norms.map(|layer| format!("{}.{BATCH_COUNT}", layer.name)).collect()
    }

    /// Names of the tensors that `freeze_at` freezes: with 0 none, with n those of the stem and of the first n - 1 stages, as
    /// detectron2's FREEZE_AT. Buffers are among them.
    pub fn frozen(&self, freeze_at: usize) -> Vec<String> {
        let frozen = self.0.iter().filter(|layer| layer.stage.is_some_and(|stage| stage < freeze_at));
        frozen.flat_map(LayerInfo::tensors).map(|tensor| tensor.name).collect()
    }

    /// The largest `freeze_at` that means something: the stem and the stages of the backbone.
    pub fn freezable(&self) -> usize {
        self.0.iter().filter_map(|layer| layer.stage).max().map_or(0, |stage| stage + 1)
    }

    /// Floating point operations of one pass over an image of `size`, its padding included, with `regions` regions of interest.
    ///
    /// Two operations (a multiplication and an addition) for every weight that a convolution or a linear layer applies to an output
    /// value: `2 * C_in / groups * k * k * C_out * H_out * W_out`, and `2 * I * O` a row. Biases, norms, activations, pooling,
    /// RoIAlign, box arithmetic and NMS are not counted. Some libraries publish multiply-adds under the same name: half of this.
    pub fn flops(&self, size: Size, regions: usize) -> u64 {
        self.0.iter().map(|layer| layer.flops(size, regions)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list() -> LayerList {
        let conv = LayerKind::Conv2d { c_in: 3, c_out: 8, kernel: 3, stride: 2, groups: 1, bias: false };
        let norm = LayerKind::BatchNorm { channels: 8, frozen: false };
        let layer = |name: &str, kind, place, stage| LayerInfo { name: name.to_owned(), kind, place, stage };
        LayerList::new(vec![
            layer("body.stem.0", conv, Place::Maps(vec![1]), Some(0)),
            layer("body.stem.1", norm, Place::Maps(vec![2]), Some(0)),
            layer("body.gain", LayerKind::Parameter { shape: vec![1] }, Place::Maps(vec![2]), Some(1)),
            layer("bodyguard.fc", LayerKind::Linear { inputs: 4, outputs: 5 }, Place::Regions, None),
        ])
    }

    #[test]
    fn work_is_counted_by_hand() {
        let size = Size { height: 9, width: 12 };
        assert_eq!(list().flops(size, 7), 2 * 3 * 8 * 9 * 5 * 6 + 2 * 4 * 5 * 7);
        assert_eq!(list().below("body").flops(size, 7), 2 * 3 * 8 * 9 * 5 * 6);
    }

    #[test]
    fn tensors_are_named_and_frozen_by_stage() {
        let tensors = list().tensors();
        assert_eq!(tensors.len(), 1 + 5 + 1 + 2);
        assert!(tensors["body.stem.1.running_mean"].buffer && !tensors["body.stem.1.weight"].buffer);
        assert_eq!(tensors["body.stem.1.num_batches_tracked"].role, TensorRole::BatchCount);
        assert!(list().frozen(0).is_empty());
        assert_eq!(list().frozen(1).len(), 6);
        assert_eq!(list().frozen(2).len(), 7);
        assert_eq!(list().freezable(), 2);
    }
}
