//! Winograd's three passes against the definition in f64, whatever the sizes.

use super::super::Conv2dParams;
use super::super::tests::naive;
use super::*;
use crate::testing::values;

fn geometry(x: [usize; 4], c_out: usize, padding: usize) -> Geometry {
    Geometry::new(x, [c_out, x[1], 3, 3], &Conv2dParams { padding, ..Default::default() }).unwrap()
}

/// The largest difference over the largest value.
fn error(got: &[f32], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let largest = want.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    got.iter().zip(want).map(|(&g, w)| (f64::from(g) - w).abs()).fold(0.0, f64::max) / largest
}

/// The input's and the weights' gradients by their definition, in f64.
fn naive_gradients(g: &Geometry, x: &[f32], w: &[f32], dy: &[f32]) -> [Vec<f64>; 2] {
    let (mut dx, mut dw) = (vec![0.0; x.len()], vec![0.0; w.len()]);
    for (b, o) in (0..g.batch).flat_map(|b| (0..g.c_out).map(move |o| (b, o))) {
        for (oy, ox) in (0..g.h_out).flat_map(|y| (0..g.w_out).map(move |x| (y, x))) {
            let d = f64::from(dy[((b * g.c_out + o) * g.h_out + oy) * g.w_out + ox]);
            for (i, ky, kx) in (0..g.c_in).flat_map(|i| (0..3).flat_map(move |y| (0..3).map(move |x| (i, y, x)))) {
                let (y, xx) = ((oy + ky) as isize - g.pad_h, (ox + kx) as isize - g.pad_w);
                if (0..g.h as isize).contains(&y) && (0..g.w as isize).contains(&xx) {
                    let pixel = ((b * g.c_in + i) * g.h + y as usize) * g.w + xx as usize;
                    let tap = ((o * g.c_in + i) * 3 + ky) * 3 + kx;
                    dx[pixel] += d * f64::from(w[tap]);
                    dw[tap] += d * f64::from(x[pixel]);
                }
            }
        }
    }
    [dx, dw]
}

#[test]
fn every_size_and_padding() {
    for (x, c_out, padding) in [
        ([1, 1, 3, 3], 1, 0),
        ([1, 1, 1, 1], 2, 1),
        ([2, 3, 4, 4], 5, 1),
        ([2, 3, 7, 5], 4, 1),
        ([2, 2, 9, 6], 3, 0),
        ([1, 2, 5, 8], 2, 2),
        ([1, 2, 4, 3], 2, 3),
        // More than a panel of tiles, rows of tiles longer than a panel, many panels.
        ([2, 5, 29, 31], 7, 1),
        ([1, 3, 5, 210], 4, 1),
        ([3, 2, 45, 61], 3, 1),
        // Blocks of channels with a rest, more columns than a panel.
        ([1, 37, 9, 9], 70, 1),
        ([1, 66, 6, 7], 19, 1),
    ] {
        let g = geometry(x, c_out, padding);
        let [x_len, y_len, w_len] = g.elements();
        let (xs, ws, dy) = (values(1, x_len), values(2, w_len), values(3, y_len));
        let [dx, dw] = naive_gradients(&g, &xs, &ws, &dy);
        let y = forward(&g, &xs, &ws, &Epilogue::default());
        for (what, got, want) in [
            ("forward", y, naive(&xs, &ws, &g)),
            ("dx", input_gradient(&g, &dy, &ws), dx),
            ("dw", weight_gradient(&g, &xs, &dy), dw),
        ] {
            let e = error(&got, &want);
            assert!(e < 1e-5, "{what} of {x:?} -> {c_out}, padding {padding}: {e:e}");
        }
    }
}

/// The bound that docs/benchmarks.md states, at the deepest layers of a ResNet. Half of the inputs are 0 and the rest
/// positive, as after a ReLU.
#[test]
fn error_is_bounded() {
    for (x, c_out) in [([1, 64, 20, 20], 64), ([1, 256, 12, 12], 128), ([1, 512, 10, 10], 64)] {
        let g = geometry(x, c_out, 1);
        let [x_len, y_len, w_len] = g.elements();
        let xs: Vec<f32> = values(1, x_len).into_iter().map(|v| v.max(0.0)).collect();
        let (ws, dy) = (values(2, w_len), values(3, y_len));
        let [dx, dw] = naive_gradients(&g, &xs, &ws, &dy);
        let y = naive(&xs, &ws, &g);
        let pairs = [
            ("forward", forward(&g, &xs, &ws, &Epilogue::default()), gemm_forward(&g, &xs, &ws), y),
            ("dx", input_gradient(&g, &dy, &ws), super::super::gemm::input_gradient(&g, &dy, &ws), dx),
            ("dw", weight_gradient(&g, &xs, &dy), super::super::gemm::weight_gradient(&g, &xs, &dy), dw),
        ];
        for (what, ours, direct, want) in pairs {
            let (ours, direct) = (error(&ours, &want), error(&direct, &want));
            println!("{what} {x:?} -> {c_out}: {ours:.1e}, direct {direct:.1e}");
            assert!(ours < 1e-5, "{what} of {x:?} -> {c_out}: {ours:e} (direct {direct:e})");
        }
    }
}

fn gemm_forward(g: &Geometry, x: &[f32], w: &[f32]) -> Vec<f32> {
    super::super::gemm::forward(g, x, w, &Epilogue::default())
}

/// What a cache of a frozen network's features builds on.
#[test]
fn an_image_has_the_same_bits_in_any_batch() {
    // 49 tiles an image (a panel and one), a few, a hundred, and more channels than a stretch.
    for (c, size) in [(16, [28, 28]), (33, [9, 7]), (20, [40, 37]), (260, [36, 36])] {
        let all = geometry([5, c, size[0], size[1]], 24, 1);
        let ([x_len, y_len, w_len], scale) = (all.elements(), values(4, 24));
        let (x, w) = (values(1, x_len), values(2, w_len));
        let epilogue = Epilogue { affine: Some((&scale, &scale)), relu: true, ..Default::default() };
        let together = forward(&all, &x, &w, &epilogue);
        let one = Geometry { batch: 1, ..all };
        for (x, y) in x.chunks(x_len / 5).zip(together.chunks(y_len / 5)) {
            assert!(forward(&one, x, &w, &epilogue) == y, "{c} channels of {size:?}");
        }
    }
}
