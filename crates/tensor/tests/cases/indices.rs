//! Indexing, scattering and sorting.

use super::case::{Case, N, effect, f32, matrix, u32, value};

pub fn cases() -> Vec<Case> {
    vec![
        value!("index_select of rows", [matrix(), u32(&[16])], |t| t[0].index_select(&t[1], 0)),
        value!("index_select of columns", [matrix(), u32(&[16])], |t| t[0].index_select(&t[1], 1)),
        value!("embedding", [matrix(), u32(&[16])], |t| t[0].embedding(&t[1])),
        value!("gather", [matrix(), u32(&[N, 4])], |t| t[0].gather(&t[1], 1)),
        value!("scatter", [matrix(), u32(&[N, 4]), f32(&[N, 4])], |t| t[0].scatter(&t[1], &t[2], 1)),
        value!("scatter_add", [matrix(), u32(&[N, 4]), f32(&[N, 4])], |t| t[0].scatter_add(&t[1], &t[2], 1)),
        effect!("scatter_set", [matrix(), u32(&[N, 4]), f32(&[N, 4])], |t| t[0].scatter_set(&t[1], &t[2], 1)),
        effect!("scatter_add_set", [matrix(), u32(&[N, 4]), f32(&[N, 4])], |t| t[0].scatter_add_set(&t[1], &t[2], 1)),
        value!("index_add of rows", [matrix(), u32(&[4]), f32(&[4, N])], |t| t[0].index_add(&t[1], &t[2], 0)),
        value!("index_add of columns", [matrix(), u32(&[4]), f32(&[N, 4])], |t| t[0].index_add(&t[1], &t[2], 1)),
        value!("arg_sort_last_dim", [matrix()], |t| t[0].arg_sort_last_dim(true)),
        value!("sort_last_dim", [matrix()], |t| Ok(t[0].sort_last_dim(false)?.0)),
        value!("strided index by a tensor", [matrix(), u32(&[4])], |t| {
            use candle_core::IndexOp;
            t[0].i((&t[1], ..))
        }),
    ]
}
