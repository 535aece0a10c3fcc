//! Pieces of work on all threads. Where a piece is a part of a sum, the pieces depend on shapes alone and never on the number of
//! threads, so that every sum is taken in the same order on any machine.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::mem::MaybeUninit;

use rayon::prelude::*;

use crate::simd::wide;

/// Elements of one piece of an element-wise operation.
const CHUNK: usize = if cfg!(miri) { 1 << 5 } else { 1 << 14 };

/// Below this much work (multiply-adds or elements moved) waking another thread costs more than it brings.
const SMALL: usize = if cfg!(miri) { 1 << 6 } else { 1 << 15 };

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

/// Fills a new buffer of `n` values piece by piece: `f(start, piece)` writes every element of its piece.
///
/// # Safety
/// `f` returns only when it has written every element of its piece.
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
    // SAFETY: there is room for n values, the pieces cover 0..n, and f has written all of each by the caller's promise.
    unsafe { out.set_len(n) };
    out
}

/// `n` zeros.
pub(crate) fn zeros(n: usize) -> Vec<f32> {
    // SAFETY: f writes all of its piece.
    unsafe { fill(n, CHUNK, |_, out| out.fill(MaybeUninit::new(0.0))) }
}

/// `f` of each element.
pub(crate) fn map1(a: &[f32], f: impl Fn(f32) -> f32 + Sync + Send) -> Vec<f32> {
    // SAFETY: `a` reaches at least to the end of each piece, so each1 writes all of it.
    unsafe { fill(a.len(), CHUNK, |at, out| each1(out, &a[at..], &f)) }
}

/// `f` of each pair of elements. The shorter operand decides the length.
pub(crate) fn map2(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32 + Sync + Send) -> Vec<f32> {
    // SAFETY: both operands reach at least to the end of each piece, so each2 writes all of it.
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

/// A buffer that tasks write in disjoint parts: a pointer that may go to other threads. Making a slice of it or writing through it is
/// unsafe, and whoever does so answers for it that no two tasks have the same elements.
#[derive(Clone, Copy)]
pub(crate) struct Shared<'a> {
    at: *mut f32,
    len: usize,
    life: PhantomData<&'a mut [f32]>,
}

// SAFETY: it is a pointer to f32 values, which any thread may hold, into a buffer that lives for 'a. Every use of it is unsafe.
unsafe impl Send for Shared<'_> {}
// SAFETY: as above; it has no other state.
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    /// Shares an initialised buffer.
    pub fn new(buffer: &'a mut [f32]) -> Self {
        Self { at: buffer.as_mut_ptr(), len: buffer.len(), life: PhantomData }
    }

    /// Elements of the buffer.
    pub fn len(self) -> usize {
        self.len
    }

    /// A pointer to element `i`, or to the end of the buffer.
    pub fn ptr(self, i: usize) -> *mut f32 {
        debug_assert!(i <= self.len);
        self.at.wrapping_add(i)
    }

    /// Elements `i..i + n`, to be written.
    ///
    /// # Panics
    /// When they are not inside the buffer.
    ///
    /// # Safety
    /// Nobody else holds or writes any of them while the slice lives.
    pub unsafe fn room(self, i: usize, n: usize) -> &'a mut [MaybeUninit<f32>] {
        assert!(i <= self.len && n <= self.len - i, "{n} values from {i} of a buffer of {}", self.len);
        // SAFETY: the range is inside the buffer, which lives for 'a; nobody else has it by the caller's promise. The values may be
        // uninitialised.
        unsafe { std::slice::from_raw_parts_mut(self.at.add(i).cast(), n) }
    }

    /// Elements `i..i + n`.
    ///
    /// # Panics
    /// When they are not inside the buffer.
    ///
    /// # Safety
    /// They are initialised, and nobody else holds or writes any of them while the slice lives.
    pub unsafe fn slice(self, i: usize, n: usize) -> &'a mut [f32] {
        assert!(i <= self.len && n <= self.len - i, "{n} values from {i} of a buffer of {}", self.len);
        // SAFETY: the range is inside the buffer, which lives for 'a; it is initialised and nobody else has it by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.at.add(i), n) }
    }
}

/// A new buffer of `n` values that `f` writes through raw pointers, in parts of any form.
///
/// # Safety
/// `f` returns only when every element is written.
pub(crate) unsafe fn build(n: usize, f: impl FnOnce(Shared<'_>)) -> Vec<f32> {
    let mut out = Vec::<f32>::with_capacity(n);
    f(Shared { at: out.as_mut_ptr(), len: n, life: PhantomData });
    // SAFETY: there is room for n values, and f has written all of them by the caller's promise.
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
