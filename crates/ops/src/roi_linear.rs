//! RoIAlign over several maps and the fully connected layer behind it, as one op.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Shape, Tensor};
use docent_tensor::{F32View, apply_op1, apply_op2, apply_op3, f32_operand, f32_tensor, f32_values, free_saved};

use crate::BoxXyxy;
use crate::linear::Linear;
use crate::parallel;
use crate::roi_align::{RoiAlign, RoiAlignParams};
use crate::{Error, Result};

#[cfg(test)]
mod tests;

const OP: &str = "roi_linear";

/// A map and the RoIs that are cut out of it.
#[derive(Debug, Clone)]
pub struct RoiLevel<'a> {
    /// [B, C, H, W].
    pub map: &'a Tensor,
    /// Pairs of an image's index in the batch and a box in pixels of that image.
    pub rois: Vec<(usize, BoxXyxy)>,
    /// How they are cut out.
    pub params: RoiAlignParams,
}

/// `act(x w^T + b)`, where a row of `x` is a RoI's [`roi_align`](crate::roi_align), flattened: the RoIs of the first level, of the second,
/// and so on.
///
/// `x` is a training step's largest tensor. As one operation, nobody else holds it or sees its gradient, which candle's walk would
/// set to zero, add to and keep. Values and gradients have the bits of `roi_align`, `cat` and [`linear`](crate::linear).
///
/// # Shapes
/// Maps [B, C, ..] of one C, R RoIs in all, one output size S; `w` [O, C S S], `b` `[O]`, result [R, O]. R may be 0.
///
/// # Errors
/// As both functions'; when there is no level, or levels differ in channels or output size.
pub fn roi_linear(levels: &[RoiLevel<'_>], w: &Tensor, b: &Tensor, relu: bool) -> Result<Tensor> {
    let cut = |l: &RoiLevel<'_>| Ok((RoiAlign::new(l.map, &l.rois, &l.params)?, l.rois.len()));
    let mut made = levels.iter().map(cut).collect::<Result<Vec<_>>>()?;
    let Some(row) = made.first().map(|((align, _), _)| align.row()) else {
        return Err(Error::operand(OP, "there is no level; at least one map is needed"));
    };
    if let Some(((align, _), _)) = made.iter().find(|((align, _), _)| align.row() != row) {
        let message = format!("levels have RoIs of {row} and of {} values; all must have as many", align.row());
        return Err(Error::operand(OP, message));
    }
    let count: usize = made.iter().map(|(_, rois)| rois).sum();
    let linear = Linear::new(OP, &[count, row], w, Some(b), relu)?;
    // Levels without RoIs get no gradient, as if they were not there.
    made.retain(|(_, rois)| count == 0 || *rois > 0);

    let mut x = parallel::zeros(count * row);
    let mut rest = &mut x[..];
    for ((align, map), rois) in &made {
        let (here, behind) = rest.split_at_mut(rois * row);
        align.forward(F32View::new(OP, map).values()?, here);
        rest = behind;
    }
    let (handover, tracked) = (Arc::<Handover>::default(), made.iter().map(|((_, map), _)| map.track_op()).collect());
    let link = link(made.iter().map(|((_, map), _)| map), &handover)?;
    let aligns = made.into_iter().map(|((align, _), rois)| (align, rois)).collect();
    let op = RoiLinear { x: f32_tensor(x, (count, row))?, aligns, tracked, handover, linear };
    Ok(apply_op3(&link, &f32_operand(OP, "w", w)?, &f32_operand(OP, "b", b)?, op)?)
}

/// All maps as one operand, since an operation of candle takes three: a tensor of one value, 0, that depends on each map in the graph.
/// Its gradient is no gradient but the number under which [`RoiLinear`] has left those of the maps.
fn link<'a>(
    maps: impl DoubleEndedIterator<Item = &'a Tensor> + ExactSizeIterator,
    handover: &Arc<Handover>,
) -> Result<Tensor> {
    let mut link = None;
    for (level, map) in maps.enumerate().rev() {
        let op = MapLink { level, handover: Arc::clone(handover) };
        link = Some(match link {
            None => apply_op1(map, op)?,
            Some(others) => apply_op2(map, &others, op)?,
        });
    }
    link.ok_or_else(|| Error::operand(OP, "there is no map"))
}

/// Gradients of maps, on their way from the backward pass that computes them to those of the [`MapLink`]s. What a backward pass leaves that
/// then fails goes with the graph.
#[derive(Default)]
struct Handover(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    last: u32,
    /// By number: the gradient of each level's map. Two backward passes over one graph, on two threads, have numbers of their own.
    gradients: HashMap<u32, Vec<Option<Tensor>>>,
}

impl Handover {
    /// Numbers that `f32` holds exactly.
    const NUMBERS: u32 = 1 << 24;

    /// Leaves the maps' gradients, and gives their number.
    fn leave(&self, gradients: Vec<Option<Tensor>>) -> u32 {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.last = waiting.last % (Self::NUMBERS - 1) + 1;
        let number = waiting.last;
        waiting.gradients.insert(number, gradients);
        number
    }

    /// The gradient of a level's map; each can be taken once.
    fn take(&self, number: u32, level: usize) -> Option<Tensor> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let levels = waiting.gradients.get_mut(&number)?;
        let gradient = levels.get_mut(level)?.take();
        if levels.iter().all(Option::is_none) {
            waiting.gradients.remove(&number);
        }
        gradient
    }
}

/// Operands: a level's map and, for all but one level, another link.
struct MapLink {
    level: usize,
    handover: Arc<Handover>,
}

impl MapLink {
    fn forward() -> (CpuStorage, Shape) {
        (CpuStorage::F32(vec![0.0]), Shape::from(1))
    }

    /// The map's gradient, by that of the link.
    fn backward(&self, map: &Tensor, d: &Tensor) -> Result<Option<Tensor>> {
        const OP: &str = "roi_linear's backward pass";
        if !map.track_op() {
            return Ok(None);
        }
        let view = F32View::new(OP, d);
        let gradient = view.values()?.first().and_then(|&number| self.handover.take(number as u32, self.level));
        let missing = || Error::operand(OP, format!("the gradient of the map of level {} is missing", self.level));
        Ok(Some(gradient.ok_or_else(missing)?))
    }
}

impl CustomOp1 for MapLink {
    fn name(&self) -> &'static str {
        "map_link"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        Ok(Self::forward())
    }

    fn bwd(&self, map: &Tensor, _: &Tensor, d: &Tensor) -> candle_core::Result<Option<Tensor>> {
        Ok(self.backward(map, d)?)
    }
}

impl CustomOp2 for MapLink {
    fn name(&self) -> &'static str {
        "map_link"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        Ok(Self::forward())
    }

    fn bwd(
        &self,
        map: &Tensor,
        others: &Tensor,
        _: &Tensor,
        d: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((self.backward(map, d)?, others.track_op().then(|| d.clone())))
    }
}

/// Operands: the link to the maps, w and b.
struct RoiLinear {
    /// The RoIs' values, outside any graph.
    x: Tensor,
    /// Each level's RoIs, and how many they are.
    aligns: Vec<(RoiAlign, usize)>,
    /// Whether each level's map has a gradient.
    tracked: Vec<bool>,
    handover: Arc<Handover>,
    linear: Linear,
}

impl RoiLinear {
    /// The maps' gradients by that of `x`, of those that have one.
    fn map_gradients(&self, dx: &[f32]) -> Result<Vec<Option<Tensor>>> {
        let mut dx = dx;
        let mut gradients = Vec::with_capacity(self.aligns.len());
        for ((align, rois), tracked) in self.aligns.iter().zip(&self.tracked) {
            let (here, behind) = dx.split_at(rois * align.row());
            dx = behind;
            let gradient = || {
                let mut gradient = parallel::zeros(align.maps());
                align.backward(here, &mut gradient);
                f32_tensor(gradient, &align.shape()[..])
            };
            gradients.push(tracked.then(gradient).transpose()?);
        }
        Ok(gradients)
    }
}

impl CustomOp3 for RoiLinear {
    fn name(&self) -> &'static str {
        OP
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        w: &CpuStorage,
        lw: &Layout,
        b: &CpuStorage,
        lb: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let x = F32View::new(OP, &self.x);
        Ok(self.linear.forward(x.values()?, f32_values(OP, w, lw)?, Some(f32_values(OP, b, lb)?)))
    }

    fn bwd(
        &self,
        link: &Tensor,
        w: &Tensor,
        b: &Tensor,
        y: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        const OP: &str = "roi_linear's backward pass";
        let dy = f32_operand(OP, "the gradient", dy)?;
        let (y_view, dy_view, w_view) = (F32View::new(OP, y), F32View::new(OP, &dy), F32View::new(OP, w));
        let d_sums = self.linear.through(&y_view, dy_view.values()?)?;
        let dw = |x: &F32View<'_>| f32_tensor(self.linear.weight_gradient(x.values()?, &d_sums), w.shape());
        let dw = w.track_op().then(|| dw(&F32View::new(OP, &self.x))).transpose()?;
        // Before its gradient takes as much.
        free_saved(y, &self.x)?;
        let left = || -> Result<Tensor> {
            let dx = self.linear.input_gradient(&d_sums, w_view.values()?);
            let number = self.handover.leave(self.map_gradients(&dx)?);
            Ok(f32_tensor(vec![number as f32], link.shape())?)
        };
        let d_link = link.track_op().then(left).transpose()?;
        let db = b.track_op().then(|| f32_tensor(self.linear.bias_gradient(&d_sums), b.shape())).transpose()?;
        Ok((d_link, dw, db))
    }
}
