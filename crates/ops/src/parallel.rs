//! Pieces of work on all threads. Where a piece is a part of a sum, the pieces depend on shapes alone and never on the number of
//! threads, so that every sum is taken in the same order on any machine.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::mem::MaybeUninit;

use rayon::prelude::*;

use crate::simd::wide;

/// Elements of one piece of an element-wise operation.
const CHUNK: usize = 1 << 14;

/// Below this much work (multiply-adds or elements moved) waking another thread costs more than it brings.
const SMALL: usize = 1 << 15;

/// Runs `f(0..tasks)`, on all threads when `work` (multiply-adds, or elements moved) is worth it.
pub(crate) fn for_each(tasks: usize, work: usize, f: impl Fn(usize) + Sync + Send) {
    if tasks <= 1 || work < SMALL {
        (0..tasks).for_each(f);
    } else {
        (0..tasks).into_par_iter().with_max_len(1).for_each(f);
    }
}

/// `f(0), f(1), ..` in index order, computed on all threads.
pub(crate) fn map<T: Send>(tasks: usize, work: usize, f: impl Fn(usize) -> T + Sync + Send) -> Vec<T> {
    if tasks <= 1 || work < SMALL {
        (0..tasks).map(f).collect()
    } else {
        (0..tasks).into_par_iter().with_max_len(1).map(f).collect()
    }
}

/// Fills a new buffer of `n` values piece by piece: `f(start, piece)` must write every element of its piece.
///
/// # Safety
/// `f` leaves no element of its piece unwritten.
pub(crate) unsafe fn fill(
    n: usize,
    piece: usize,
    f: impl Fn(usize, &mut [MaybeUninit<f32>]) + Sync + Send,
) -> Vec<f32> {
    let mut out = Vec::with_capacity(n);
    let piece = piece.max(1);
    let room = &mut out.spare_capacity_mut()[..n];
    if n < SMALL {
        room.chunks_mut(piece).enumerate().for_each(|(i, o)| f(i * piece, o));
    } else {
        room.par_chunks_mut(piece).enumerate().for_each(|(i, o)| f(i * piece, o));
    }
    // SAFETY: the pieces cover 0..n, and the caller's f has written all of each.
    unsafe { out.set_len(n) };
    out
}

/// `n` zeros.
pub(crate) fn zeros(n: usize) -> Vec<f32> {
    // SAFETY: all of each piece is written.
    unsafe { fill(n, CHUNK, |_, out| out.fill(MaybeUninit::new(0.0))) }
}

/// `f` of each element.
pub(crate) fn map1(a: &[f32], f: impl Fn(f32) -> f32 + Sync + Send) -> Vec<f32> {
    // SAFETY: the pieces of `a` are as long as those of the output.
    unsafe { fill(a.len(), CHUNK, |at, out| each1(out, &a[at..], &f)) }
}

/// `f` of each pair of elements. The shorter operand decides the length.
pub(crate) fn map2(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32 + Sync + Send) -> Vec<f32> {
    // SAFETY: both operands reach to the shorter one's end.
    unsafe { fill(a.len().min(b.len()), CHUNK, |at, out| each2(out, &a[at..], &b[at..], &f)) }
}

wide! {
    /// Writes `f` of each element; the operand is as long as the output, or longer.
    pub(crate) fn each1(out: &mut [MaybeUninit<f32>], a: &[f32], f: &impl Fn(f32) -> f32) {
        for (o, &a) in out.iter_mut().zip(a) {
            o.write(f(a));
        }
    }

    /// Writes `f` of each pair of elements; likewise.
    pub(crate) fn each2(out: &mut [MaybeUninit<f32>], a: &[f32], b: &[f32], f: &impl Fn(f32, f32) -> f32) {
        for ((o, &a), &b) in out.iter_mut().zip(a).zip(b) {
            o.write(f(a, b));
        }
    }

    /// Writes `f` of each triple of elements; likewise.
    pub(crate) fn each3(
        out: &mut [MaybeUninit<f32>],
        a: &[f32],
        b: &[f32],
        c: &[f32],
        f: &impl Fn(f32, f32, f32) -> f32,
    ) {
        for (((o, &a), &b), &c) in out.iter_mut().zip(a).zip(b).zip(c) {
            o.write(f(a, b, c));
        }
    }
}

/// A buffer that tasks write in disjoint parts.
#[derive(Clone, Copy)]
pub(crate) struct Shared<'a> {
    at: *mut f32,
    len: usize,
    life: PhantomData<&'a mut [f32]>,
}

// SAFETY: it is a pointer into a buffer that outlives 'a; who makes slices or writes vouches for disjointness.
unsafe impl Send for Shared<'_> {}
// SAFETY: as above.
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    /// Shares an initialised buffer.
    pub fn new(buffer: &'a mut [f32]) -> Self {
        Self { at: buffer.as_mut_ptr(), len: buffer.len(), life: PhantomData }
    }

    /// A pointer to element `i`.
    pub fn ptr(self, i: usize) -> *mut f32 {
        debug_assert!(i <= self.len);
        self.at.wrapping_add(i)
    }

    /// Elements `i..i + n`, to be written.
    ///
    /// # Safety
    /// The range is inside the buffer, and nobody else holds or writes any of it meanwhile.
    pub unsafe fn room(self, i: usize, n: usize) -> &'a mut [MaybeUninit<f32>] {
        debug_assert!(i + n <= self.len);
        // SAFETY: the caller's promise; these may be uninitialised.
        unsafe { std::slice::from_raw_parts_mut(self.at.add(i).cast(), n) }
    }

    /// Elements `i..i + n`.
    ///
    /// # Safety
    /// The range is inside the buffer and initialised, and nobody else holds or writes any of it meanwhile.
    pub unsafe fn slice(self, i: usize, n: usize) -> &'a mut [f32] {
        debug_assert!(i + n <= self.len);
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.at.add(i), n) }
    }
}

/// A new buffer of `n` values that `f` writes through raw pointers, in parts of any form.
///
/// # Safety
/// `f` writes every element.
pub(crate) unsafe fn build(n: usize, f: impl FnOnce(Shared<'_>)) -> Vec<f32> {
    let mut out = Vec::<f32>::with_capacity(n);
    f(Shared { at: out.as_mut_ptr(), len: n, life: PhantomData });
    // SAFETY: the caller's f has written all of it.
    unsafe { out.set_len(n) };
    out
}

thread_local! {
    static SCRATCH: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// Lends `f` a buffer of this thread, with any contents. Calls may be nested.
pub(crate) fn scratch<T>(n: usize, f: impl FnOnce(&mut [f32]) -> T) -> T {
    // Taken out while in use: a nested call gets the next one.
    let mut buffer = SCRATCH.with_borrow_mut(Vec::pop).unwrap_or_default();
    if buffer.len() < n {
        buffer.resize(n, 0.0);
    }
    let result = f(&mut buffer[..n]);
    SCRATCH.with_borrow_mut(|buffers| buffers.push(buffer));
    result
}
