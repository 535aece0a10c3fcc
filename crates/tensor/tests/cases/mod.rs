//! The public operations of candle 0.11.1 that read or write tensors, each with operands that fit.

mod candle_nn_ops;
mod case;
mod combine;
mod elementwise;
mod images;
mod indices;
mod output;
mod views;

pub use case::{Case, N, Operand, OperandKind};

/// All cases.
pub fn all() -> Vec<Case> {
    let parts = [
        elementwise::cases(),
        combine::cases(),
        views::cases(),
        indices::cases(),
        images::cases(),
        output::cases(),
        candle_nn_ops::cases(),
    ];
    parts.into_iter().flatten().collect()
}
