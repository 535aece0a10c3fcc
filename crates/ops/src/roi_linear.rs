//! RoIAlign over several maps and the fully connected layer behind it, as one op.

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Shape, Tensor};

use crate::boxes::BoxXyxy;
use crate::graph;
use crate::linear::Linear;
use crate::parallel;
use crate::roi_align::{RoiAlign, RoiAlignParams};
use crate::storage::{View, operand, tensor, values};
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
        align.forward(View::new(OP, map).values()?, here);
        rest = behind;
    }
    let maps = join(made.iter().map(|((_, map), _)| map))?;
    let aligns = made.into_iter().map(|((align, _), rois)| (align, rois)).collect();
    let op = RoiLinear { x: tensor(x, (count, row))?, aligns, linear };
    graph::apply3(&maps, &operand(OP, "w", w)?, &operand(OP, "b", b)?, op)
}

/// All maps as one operand: an op of candle takes three. It has no values, since who reads them has had them.
fn join<'a>(mut maps: impl DoubleEndedIterator<Item = &'a Tensor>) -> Result<Tensor> {
    let last = maps.next_back().ok_or_else(|| Error::operand(OP, "there is no map"))?;
    maps.try_rfold(last.clone(), |behind, map| graph::apply2(map, &behind, Join))
}

/// Operands: a map, and the maps behind it. The result's gradient is theirs, one behind the other.
struct Join;

impl CustomOp2 for Join {
    fn name(&self) -> &'static str {
        "join"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        map: &Layout,
        _: &CpuStorage,
        behind: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(Vec::new()), Shape::from(map.shape().elem_count() + behind.shape().elem_count())))
    }

    fn bwd(
        &self,
        map: &Tensor,
        behind: &Tensor,
        _: &Tensor,
        d: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let view = View::new(OP, d);
        let (of_map, of_behind) = view.values()?.split_at(map.elem_count());
        let part = |t: &Tensor, d: &[f32]| t.track_op().then(|| tensor(d.to_vec(), t.shape())).transpose();
        Ok((part(map, of_map)?, part(behind, of_behind)?))
    }
}

/// Operands: the maps, w and b.
struct RoiLinear {
    /// The RoIs' values, outside any graph.
    x: Tensor,
    /// Each level's RoIs, and how many they are.
    aligns: Vec<(RoiAlign, usize)>,
    linear: Linear,
}

impl RoiLinear {
    /// The maps' gradients, one behind the other, by that of `x`.
    fn map_gradients(&self, dx: &[f32]) -> Vec<f32> {
        let mut gradients = parallel::zeros(self.aligns.iter().map(|(align, _)| align.maps()).sum());
        let (mut rest, mut dx) = (&mut gradients[..], dx);
        for (align, rois) in &self.aligns {
            let (here, behind) = rest.split_at_mut(align.maps());
            let (d_here, d_behind) = dx.split_at(rois * align.row());
            align.backward(d_here, here);
            (rest, dx) = (behind, d_behind);
        }
        gradients
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
        let x = View::new(OP, &self.x);
        Ok(self.linear.forward(x.values()?, values(OP, w, lw)?, Some(values(OP, b, lb)?)))
    }

    fn bwd(
        &self,
        maps: &Tensor,
        w: &Tensor,
        b: &Tensor,
        y: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        const OP: &str = "roi_linear's backward pass";
        let dy = operand(OP, "the gradient", dy)?;
        let (y_view, dy_view, w_view) = (View::new(OP, y), View::new(OP, &dy), View::new(OP, w));
        let d_sums = self.linear.through(&y_view, dy_view.values()?)?;
        let dw = |x: &View<'_>| tensor(self.linear.weight_gradient(x.values()?, &d_sums), w.shape());
        let dw = w.track_op().then(|| dw(&View::new(OP, &self.x))).transpose()?;
        // Before its gradient takes as much.
        graph::free_with(y, &self.x)?;
        let maps_gradient = || -> Result<Tensor> {
            let dx = self.linear.input_gradient(&d_sums, w_view.values()?);
            tensor(self.map_gradients(&dx), maps.shape())
        };
        let d_maps = maps.track_op().then(maps_gradient).transpose()?;
        let db = b.track_op().then(|| tensor(self.linear.bias_gradient(&d_sums), b.shape())).transpose()?;
        Ok((d_maps, dw, db))
    }
}
