//! A backward walk that frees the graph's values on its way, and the wrapper by which this crate's operations take part in it.

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, InplaceOp1, Layout, Shape, Tensor, TensorId};

use crate::parallel::map2;
use crate::storage::{View, tensor};
use crate::{Error, Result};

/// The gradients of `loss`, as [`Tensor::backward`] gives them, for a graph that nobody needs afterwards.
///
/// candle keeps every value of a graph until the whole walk is over. Here the value of an operation of this crate is freed as soon
/// as its gradient has been passed on, which is what PyTorch does without `retain_graph`, and the gradient of a `Var` is taken as it
/// is, where candle makes zeros and adds to them. The gradients are the same numbers, in the same order of summation where a `Var`'s
/// consumers are all of this crate or all of candle.
///
/// Afterwards the values between the `Var`s and `loss` are gone, and so are those of tensors that share their memory (`detach`,
/// `reshape`, `narrow`): this crate's operations refuse them with an error, candle's own panic. Read what is needed before. Losses
/// are kept, and so is what candle's own operations computed.
///
/// A value may not reach the graph twice, once `detach`ed: the walk knows nothing of that second way, and may free what it reads.
///
/// ```
/// use candle_core::{Device, Var};
/// use docent_ops::{backward_freeing, relu};
///
/// let x = Var::new(&[3f32, -1.0], &Device::Cpu)?;
/// let y = relu(&x)?;
/// let loss = y.sqr()?.sum_all()?;
/// let gradients = backward_freeing(&loss)?;
/// assert_eq!(gradients.get(&x).unwrap().to_vec1::<f32>()?, [6.0, 0.0]);
/// assert!(relu(&y).is_err());
/// # Ok::<_, docent_ops::Error>(())
/// ```
///
/// # Errors
/// As [`Tensor::backward`]'s; of the graph, some values are gone then.
pub fn backward_freeing(loss: &Tensor) -> Result<GradStore> {
    let nodes = loss.sorted_nodes().into_iter().map(Tensor::id).collect();
    let walk = Open::new(Walk { nodes, gradients: HashMap::new() });
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

/// Frees the values of `t`, which nobody reads again, and of what shares its memory, while the graph goes on to know its shape.
/// Without a graph it does nothing: the values go with their last owner.
///
/// For what a forward pass alone needs. A backward pass reads no residual of [`conv2d`](crate::conv2d) and
/// [`batch_norm_train`](crate::batch_norm_train), no operand of [`upsample_nearest_add`](crate::upsample_nearest_add) and of candle's
/// `cat` and sums; and the result of an operation only where that ends with a ReLU, a ReLU6 or a softmax.
///
/// Whoever reads them in spite of that is refused as after [`backward_freeing`].
///
/// # Errors
/// When `t` is a `Var`, or not on the CPU.
pub fn release(t: Tensor) -> Result<()> {
    if t.is_variable() {
        return Err(Error::operand("release", "this is a Var; its values are its owner's"));
    }
    if t.track_op() { Ok(t.inplace_op1(&Free)?) } else { Ok(()) }
}

/// A walk of [`backward_freeing`].
#[derive(Default)]
struct Walk {
    /// Whose values are freed. A thread that waits for the pool may take up other work meanwhile, with a graph of its own.
    nodes: HashSet<TensorId>,
    /// Of `Var`s, by those of their consumers that are this crate's.
    gradients: HashMap<TensorId, Tensor>,
}

thread_local! {
    static WALKS: RefCell<Vec<Walk>> = const { RefCell::new(Vec::new()) };
}

/// The innermost walk of this thread: ended when it is closed or, after an error, dropped.
struct Open;

impl Open {
    fn new(walk: Walk) -> Self {
        WALKS.with_borrow_mut(|walks| walks.push(walk));
        Self
    }

    fn close(self) -> Walk {
        WALKS.with_borrow_mut(|walks| walks.last_mut().map(std::mem::take).unwrap_or_default())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        WALKS.with_borrow_mut(Vec::pop);
    }
}

/// The result of `f` for the walk that `node`'s backward pass belongs to, if that is one of [`backward_freeing`].
fn in_walk<T>(node: &Tensor, f: impl FnOnce(&mut Walk) -> T) -> Option<T> {
    WALKS.with_borrow_mut(|walks| walks.iter_mut().rev().find(|w| w.nodes.contains(&node.id())).map(f))
}

/// Frees `kept`, which the backward pass of the operation behind `node` was the last to read, where its walk frees.
pub(crate) fn free_with(node: &Tensor, kept: &Tensor) -> candle_core::Result<()> {
    if in_walk(node, |_| ()).is_some() { kept.inplace_op1(&Free) } else { Ok(()) }
}

/// What the walk is told of the operand `x`'s gradient by the operation behind `node`; a `Var`'s is kept beside the walk.
fn pass_on(node: &Tensor, x: &Tensor, gradient: Option<Tensor>) -> candle_core::Result<Option<Tensor>> {
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

/// The sum of two gradients, on all threads.
fn sum(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (of_a, of_b) = (View::new("a gradient", a), View::new("a gradient", b));
    tensor(map2(of_a.values()?, of_b.values()?, |a, b| a + b), a.shape())
}

/// Leaves a tensor's memory empty.
struct Free;

impl InplaceOp1 for Free {
    fn name(&self) -> &'static str {
        "free"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, _: &Layout) -> candle_core::Result<()> {
        *storage = CpuStorage::F32(Vec::new());
        Ok(())
    }
}

/// `op` of `x`, as a node that [`backward_freeing`] knows.
pub(crate) fn apply1(x: &Tensor, op: impl CustomOp1 + Send + Sync + 'static) -> Result<Tensor> {
    Ok(x.apply_op1(Node(op))?)
}

/// The same for two operands.
pub(crate) fn apply2(x: &Tensor, y: &Tensor, op: impl CustomOp2 + Send + Sync + 'static) -> Result<Tensor> {
    Ok(x.apply_op2(y, Node(op))?)
}

/// The same for three operands.
pub(crate) fn apply3(x: &Tensor, y: &Tensor, z: &Tensor, op: impl CustomOp3 + Send + Sync + 'static) -> Result<Tensor> {
    Ok(x.apply_op3(y, z, Node(op))?)
}

/// An operation whose result is freed after its backward pass, where the walk frees.
struct Node<O>(O);

/// What its backward pass ends with: neither its result nor the gradient of that, which the walk has made for it alone, is read again.
fn spend(node: &Tensor, gradient: &Tensor, passed_on: &[&Option<Tensor>]) -> candle_core::Result<()> {
    free_with(node, node)?;
    // Without a ReLU a residual's gradient is the result's.
    let shared = passed_on.iter().any(|g| g.as_ref().is_some_and(|g| g.id() == gradient.id()));
    if shared { Ok(()) } else { free_with(node, gradient) }
}

impl<O: CustomOp1> CustomOp1 for Node<O> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        self.0.cpu_fwd(x, lx)
    }

    fn bwd(&self, x: &Tensor, out: &Tensor, d_out: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let dx = self.0.bwd(x, out, d_out)?;
        spend(out, d_out, &[&dx])?;
        pass_on(out, x, dx)
    }
}

impl<O: CustomOp2> CustomOp2 for Node<O> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        y: &CpuStorage,
        ly: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        self.0.cpu_fwd(x, lx, y, ly)
    }

    fn bwd(
        &self,
        x: &Tensor,
        y: &Tensor,
        out: &Tensor,
        d_out: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let (dx, dy) = self.0.bwd(x, y, out, d_out)?;
        spend(out, d_out, &[&dx, &dy])?;
        Ok((pass_on(out, x, dx)?, pass_on(out, y, dy)?))
    }
}

impl<O: CustomOp3> CustomOp3 for Node<O> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        y: &CpuStorage,
        ly: &Layout,
        z: &CpuStorage,
        lz: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        self.0.cpu_fwd(x, lx, y, ly, z, lz)
    }

    fn bwd(
        &self,
        x: &Tensor,
        y: &Tensor,
        z: &Tensor,
        out: &Tensor,
        d_out: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (dx, dy, dz) = self.0.bwd(x, y, z, out, d_out)?;
        spend(out, d_out, &[&dx, &dy, &dz])?;
        Ok((pass_on(out, x, dx)?, pass_on(out, y, dy)?, pass_on(out, z, dz)?))
    }
}
