//! A backward pass that frees the graph's values on its way.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor, TensorId};
use rayon::prelude::*;

use crate::Result;
use crate::freed::free;
use crate::view::{F32View, f32_tensor};

/// The gradients of `loss`, as [`Tensor::backward`] computes them, for a graph that nobody reads afterwards.
///
/// candle keeps every value of a graph until the whole backward pass is over. This function frees the result of an operation that was run
/// by [`apply_op1`](crate::apply_op1) and its siblings (all of docent-ops are) as soon as its gradient has been passed on, as PyTorch does
/// without `retain_graph`. The gradient of a `Var` is stored as it is, where candle adds it to a tensor of zeros. The gradients are the same
/// numbers, in the same order of summation where the consumers of a `Var` are all such operations or all of candle's.
///
/// Afterwards the values of such results between the `Var`s and `loss` are freed, and with them those of tensors that share their memory
/// (`detach`, `reshape`, `narrow`): reading them gives an error, see [`release`](crate::release). Read what you need before. The loss is
/// kept, and so is what candle's own operations computed. To run two backward passes over one graph, call [`Tensor::backward`] first.
///
/// A value may not come back into the graph through `detach`: the walk does not see that consumer, and may free what it reads.
///
/// # Errors
/// As [`Tensor::backward`]'s. Some values of the graph are freed then.
pub fn backward_freeing(loss: &Tensor) -> Result<GradStore> {
    let nodes = loss.sorted_nodes().into_iter().map(Tensor::id).collect();
    let walk = OpenWalk::new(Walk { nodes, gradients: HashMap::new() });
    let mut gradients = loss.backward()?;
    for (id, gradient) in walk.close().gradients {
        let gradient = match gradients.get_id(id) {
            Some(of_candle) => sum(of_candle, &gradient)?,
            None => gradient,
        };
        gradients.insert_id(id, gradient);
    }
    Ok(gradients)
}

/// A running call of [`backward_freeing`].
#[derive(Default)]
struct Walk {
    /// The nodes whose values are freed. A thread that waits for the pool may start to walk another graph meanwhile.
    nodes: HashSet<TensorId>,
    /// Gradients of `Var`s, by those of their consumers that were run by `apply_op`.
    gradients: HashMap<TensorId, Tensor>,
}

thread_local! {
    static WALKS: RefCell<Vec<Walk>> = const { RefCell::new(Vec::new()) };
}

/// The innermost walk of this thread. It ends when it is closed or, after an error, dropped.
struct OpenWalk;

impl OpenWalk {
    fn new(walk: Walk) -> Self {
        WALKS.with_borrow_mut(|walks| walks.push(walk));
        Self
    }

    fn close(self) -> Walk {
        WALKS.with_borrow_mut(|walks| walks.last_mut().map(std::mem::take).unwrap_or_default())
    }
}

impl Drop for OpenWalk {
    fn drop(&mut self) {
        WALKS.with_borrow_mut(Vec::pop);
    }
}

/// The result of `f` for the freeing walk that the backward pass of `node` belongs to; `None` in a backward pass of candle.
fn in_walk<T>(node: &Tensor, f: impl FnOnce(&mut Walk) -> T) -> Option<T> {
    WALKS.with_borrow_mut(|walks| walks.iter_mut().rev().find(|w| w.nodes.contains(&node.id())).map(f))
}

/// Frees `t` if the backward pass of `node` belongs to a freeing walk.
pub(crate) fn free_in_walk(node: &Tensor, t: &Tensor) -> candle_core::Result<()> {
    if in_walk(node, |_| ()).is_some() { free(t) } else { Ok(()) }
}

/// The gradient that the operation behind `node` gives candle for its operand `x`. In a freeing walk the gradient of a `Var` is kept in the
/// walk, and candle gets none.
pub(crate) fn pass_on(node: &Tensor, x: &Tensor, gradient: Option<Tensor>) -> candle_core::Result<Option<Tensor>> {
    let Some(gradient) = gradient else { return Ok(None) };
    if !x.is_variable() {
        return Ok(Some(gradient));
    }
    let Some(before) = in_walk(node, |walk| walk.gradients.remove(&x.id())) else { return Ok(Some(gradient)) };
    let gradient = match before {
        Some(before) => sum(&before, &gradient)?,
        None => gradient,
    };
    in_walk(node, |walk| walk.gradients.insert(x.id(), gradient));
    Ok(None)
}

/// Elements that one thread adds at least.
const PIECE: usize = 1 << 14;

/// The sum of two gradients: on all threads for `f32` on the CPU, by candle otherwise.
fn sum(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let plain = |t: &Tensor| t.device().is_cpu() && t.dtype() == DType::F32 && t.is_contiguous();
    if !(plain(a) && plain(b)) || a.shape() != b.shape() {
        return Ok((a + b)?);
    }
    let (of_a, of_b) = (F32View::new("a gradient", a), F32View::new("a gradient", b));
    let pairs = of_a.values()?.par_iter().zip(of_b.values()?).with_min_len(PIECE);
    f32_tensor(pairs.map(|(a, b)| a + b).collect(), a.shape())
}

#[cfg(test)]
pub(crate) fn no_walk_is_open() -> bool {
    WALKS.with_borrow(Vec::is_empty)
}
