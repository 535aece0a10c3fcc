//! Strided matrix products on one thread, transposition, and a product cut into fixed blocks for all threads.
//!
//! | file | what lives there |
//! |---|---|
//! | `kernel` | the innermost loops, for AVX-512 and AVX2 |
//! | `matrix` | strided matrices, and their products on one thread |
//! | `packed` | left operands in the order in which the kernels read them |
//! | `product` | a product on all threads |
//! | `transpose` | transposition |

mod kernel;
mod matrix;
mod packed;
mod product;
#[cfg(test)]
mod tests;
mod transpose;

pub(crate) use kernel::{DEPTH, PANEL, Sum, strip};
pub(crate) use matrix::{Mat, gemm_panel};
pub(crate) use packed::Packed;
pub(crate) use product::product;
pub(crate) use transpose::{transpose, transposed};
