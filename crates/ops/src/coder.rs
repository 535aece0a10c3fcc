//! The code of a box relative to another: what a box regression predicts.

use crate::BoxXyxy;

/// Encodes a box as four deltas from a reference box, and decodes them (Girshick et al., R-CNN, appendix C; the formulas
/// and their order of operations are those of torchvision's `BoxCoder`).
///
/// For a proposal of centre `(px, py)` and size `pw x ph`, and a box of centre `(gx, gy)` and size `gw x gh`:
/// `dx = wx (gx - px) / pw`, `dy = wy (gy - py) / ph`, `dw = ww ln(gw / pw)`, `dh = wh ln(gh / ph)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BoxCoder {
    /// `[wx, wy, ww, wh]`: 1 each in torchvision's RPN, `[10, 10, 5, 5]` in its box head.
    pub weights: [f32; 4],
    /// The greatest `dw / ww` and `dh / wh` that [`BoxCoder::decode`] raises e to. Keeps an early, wild prediction from
    /// overflowing.
    pub clip: f32,
}

impl BoxCoder {
    /// `ln(1000 / 16)`: a decoded side is at most 62.5 times its proposal's.
    pub const CLIP: f32 = 4.135_166_6;

    /// A coder with these weights, and [`BoxCoder::CLIP`].
    pub const fn new(weights: [f32; 4]) -> Self {
        Self { weights, clip: Self::CLIP }
    }

    /// The deltas that lead from `proposal` to `reference`, both in pixels of one image.
    ///
    /// The result is finite only if both boxes have sides above 0: leave degenerate boxes out before.
    pub fn encode(&self, reference: &BoxXyxy, proposal: &BoxXyxy) -> [f32; 4] {
        let [wx, wy, ww, wh] = self.weights;
        let (pw, ph) = (proposal[2] - proposal[0], proposal[3] - proposal[1]);
        let (px, py) = (proposal[0] + 0.5 * pw, proposal[1] + 0.5 * ph);
        let (gw, gh) = (reference[2] - reference[0], reference[3] - reference[1]);
        let (gx, gy) = (reference[0] + 0.5 * gw, reference[1] + 0.5 * gh);
        [wx * (gx - px) / pw, wy * (gy - py) / ph, ww * (gw / pw).ln(), wh * (gh / ph).ln()]
    }

    /// The box, in pixels, that `deltas` lead to from `proposal`. Not clipped to any image.
    pub fn decode(&self, deltas: &[f32; 4], proposal: &BoxXyxy) -> BoxXyxy {
        let [wx, wy, ww, wh] = self.weights;
        let (pw, ph) = (proposal[2] - proposal[0], proposal[3] - proposal[1]);
        let (px, py) = (proposal[0] + 0.5 * pw, proposal[1] + 0.5 * ph);
        // Written so that a NaN stays one: `f32::min` would turn it into the clip.
        let bounded = |d: f32| if d > self.clip { self.clip } else { d };
        let (dx, dy) = (deltas[0] / wx, deltas[1] / wy);
        let (dw, dh) = (bounded(deltas[2] / ww), bounded(deltas[3] / wh));
        let (x, y) = (dx * pw + px, dy * ph + py);
        let (half_w, half_h) = (0.5 * (dw.exp() * pw), 0.5 * (dh.exp() * ph));
        [x - half_w, y - half_h, x + half_w, y + half_h]
    }
}

impl Default for BoxCoder {
    /// Weights of 1.
    fn default() -> Self {
        Self::new([1.0; 4])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn close(a: &[f32; 4], b: &[f32; 4], tolerance: f32) -> bool {
        a.iter().zip(b).all(|(x, y)| (x - y).abs() <= tolerance * (1.0 + y.abs()))
    }

    #[test]
    fn the_clip_is_ln_1000_over_16() {
        assert_eq!(BoxCoder::CLIP, (1000f64 / 16.0).ln() as f32);
    }

    #[test]
    fn a_box_is_zero_deltas_from_itself() {
        let b = [3.0, 4.0, 20.0, 11.0];
        assert_eq!(BoxCoder::default().encode(&b, &b), [0.0; 4]);
        assert!(close(&BoxCoder::default().decode(&[0.0; 4], &b), &b, 1e-6));
    }

    /// Numbers of torchvision 0.29's `BoxCoder`.
    #[test]
    fn codes_are_torchvisions() {
        let proposals = [[10.0, 20.0, 50.0, 100.0], [3.5, 4.25, 19.75, 9.5]];
        let gt_boxes = [[12.0, 18.0, 60.0, 90.0], [1.0, 2.0, 30.0, 40.5]];
        let deltas = [[0.5, -0.25, 0.75, -1.0], [1.5, 2.0, 30.0, 0.1]];
        let goldens = [
            (
                [1.0; 4],
                [[0.15, -0.075, 0.1823216, -0.1053605], [0.2384615, 2.738095, 0.579203, 1.99243]],
                [[7.659996, 25.28482, 92.34, 54.71518], [-471.8125, 14.47393, 543.8125, 20.27607]],
            ),
            (
                [10.0, 10.0, 5.0, 5.0],
                [[1.5, -0.75, 0.911608, -0.5268027], [2.384615, 27.38095, 2.896015, 9.962151]],
                [[8.763315, 25.25077, 55.23669, 90.74923], [-493.75, 5.246972, 521.875, 10.60303]],
            ),
        ];
        for (weights, codes, boxes) in goldens {
            let c = BoxCoder::new(weights);
            for i in 0..2 {
                let (code, decoded) = (c.encode(&gt_boxes[i], &proposals[i]), c.decode(&deltas[i], &proposals[i]));
                assert!(close(&code, &codes[i], 1e-6), "{code:?}");
                assert!(close(&decoded, &boxes[i], 1e-6), "{decoded:?}");
            }
        }
    }

    #[test]
    fn growth_is_bounded_and_shrinking_is_not() {
        let c = BoxCoder::default();
        let d = c.decode(&[0.0, 0.0, 100.0, -100.0], &[0.0, 0.0, 16.0, 16.0]);
        assert!((d[2] - d[0] - 1000.0).abs() < 1e-2, "{d:?}");
        assert!((d[3] - d[1]).abs() < 1e-6, "{d:?}");
        assert!(c.decode(&[0.0, 0.0, f32::NAN, 0.0], &[0.0, 0.0, 16.0, 16.0])[0].is_nan());
    }

    fn proper_box() -> impl Strategy<Value = BoxXyxy> {
        (-50f32..500.0, -50f32..500.0, 1f32..300.0, 1f32..300.0).prop_map(|(x, y, w, h)| [x, y, x + w, y + h])
    }

    proptest! {
        #[test]
        fn decode_undoes_encode(gt in proper_box(), proposal in proper_box(), w in prop::sample::select(vec![[1.0; 4], [10.0, 10.0, 5.0, 5.0]])) {
            // Past the clip of the sizes' ratio nothing can come back.
            prop_assume!((gt[2] - gt[0]) / (proposal[2] - proposal[0]) < 62.0);
            prop_assume!((gt[3] - gt[1]) / (proposal[3] - proposal[1]) < 62.0);
            let c = BoxCoder::new(w);
            let back = c.decode(&c.encode(&gt, &proposal), &proposal);
            prop_assert!(back.iter().zip(&gt).all(|(x, y)| (x - y).abs() < 5e-3), "{back:?} {gt:?}");
        }
    }
}
