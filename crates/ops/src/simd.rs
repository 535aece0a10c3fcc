//! Loops compiled once for each vector width of the CPU's family and chosen when the program runs.
//!
//! The compiler's baseline is SSE2 on x86-64: four lanes and two operands an instruction. [`wide!`] makes three copies of
//! a function, for AVX-512, for AVX2 and for the baseline, and calls the one that this CPU runs. The body is plain Rust,
//! which LLVM vectorises in each copy; it never joins a product and a sum, so that all copies give the same bits. On other
//! families (NEON is the baseline of 64-bit ARM) there is the one plain copy.

/// The widest instructions that this CPU has.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Level {
    Baseline,
    Avx2,
    Avx512,
}

/// Asks the CPU; the standard library remembers the answer.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(crate) fn level() -> Level {
    if is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
    {
        Level::Avx512
    } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        Level::Avx2
    } else {
        Level::Baseline
    }
}

/// Defines functions whose bodies are compiled for each level and called through [`level`]; `unsafe` ones in a call of their own.
///
/// Everything that a body calls in its loops must be `#[inline(always)]` or small: what is not inlined is compiled for the
/// baseline alone.
macro_rules! wide {
    ($($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block)*) => {$(
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn plain($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                fn avx512($($arg: $ty),*) $(-> $ret)? {
                    plain($($arg),*)
                }
                #[target_feature(enable = "avx2")]
                fn avx2($($arg: $ty),*) $(-> $ret)? {
                    plain($($arg),*)
                }
                match $crate::simd::level() {
                    // SAFETY: the CPU has these instructions.
                    $crate::simd::Level::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    $crate::simd::Level::Avx2 => return unsafe { avx2($($arg),*) },
                    $crate::simd::Level::Baseline => {}
                }
            }
            #[allow(unreachable_code)]
            plain($($arg),*)
        }
    )*};
    ($($(#[$meta:meta])* $vis:vis unsafe fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $body:block)*) => {$(
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $vis unsafe fn $name($($arg: $ty),*) {
            #[inline(always)]
            unsafe fn plain($($arg: $ty),*) $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                unsafe fn avx512($($arg: $ty),*) {
                    // SAFETY: the promise of this function's caller.
                    unsafe { plain($($arg),*) }
                }
                #[target_feature(enable = "avx2")]
                unsafe fn avx2($($arg: $ty),*) {
                    // SAFETY: the promise of this function's caller.
                    unsafe { plain($($arg),*) }
                }
                match $crate::simd::level() {
                    // SAFETY: the CPU has these instructions; the rest is the promise of this function's caller.
                    $crate::simd::Level::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    $crate::simd::Level::Avx2 => return unsafe { avx2($($arg),*) },
                    $crate::simd::Level::Baseline => {}
                }
            }
            // SAFETY: the promise of this function's caller.
            #[allow(unreachable_code)]
            unsafe {
                plain($($arg),*)
            }
        }
    )*};
}
pub(crate) use wide;
