//! Anchors as torchvision lays them: rounded boxes around the upper left corner of every cell.

use crate::config::AnchorConfig;
use crate::{Error, Result, Size};
use docent_ops::BoxXyxy;

/// One level's anchors around the origin, one a ratio, with torchvision's float32 arithmetic: for the ratio r = h / w
/// and the size s, `w = s / sqrt(r)`, `h = s * sqrt(r)`, each corner rounded to a whole pixel, halves to the even one.
pub fn base_anchors(size: f32, ratios: &[f32]) -> Vec<BoxXyxy> {
    ratios
        .iter()
        .map(|r| {
            let h_ratio = r.sqrt();
            let w_ratio = 1.0 / h_ratio;
            let (w, h) = (w_ratio * size, h_ratio * size);
            [-w / 2.0, -h / 2.0, w / 2.0, h / 2.0].map(f32::round_ties_even)
        })
        .collect()
}

/// The anchors of a grid, in the order (row, column, anchor): the base anchors moved by whole strides.
pub fn grid_anchors(base: &[BoxXyxy], grid: Size, stride: Size) -> Vec<BoxXyxy> {
    let mut all = Vec::with_capacity(base.len() * grid.height * grid.width);
    for row in 0..grid.height {
        let y = (row * stride.height) as f32;
        for column in 0..grid.width {
            let x = (column * stride.width) as f32;
            all.extend(base.iter().map(|b| [x + b[0], y + b[1], x + b[2], y + b[3]]));
        }
    }
    all
}

/// The anchors of every level of an image padded to `image` whose feature maps have the sizes `grids`.
/// A level's stride is, as in torchvision, `image / grid` rounded down, for rows and columns apart.
///
/// # Errors
/// Another number of levels than of anchor sizes; a grid without a cell.
pub fn pyramid_anchors(cfg: &AnchorConfig, image: Size, grids: &[Size]) -> Result<Vec<Vec<BoxXyxy>>> {
    if grids.len() != cfg.sizes.len() {
        return Err(Error::input(
            "anchors",
            format!("{} feature levels, {} anchor sizes; each level takes one size", grids.len(), cfg.sizes.len()),
        ));
    }
    grids
        .iter()
        .zip(&cfg.sizes)
        .map(|(&grid, &size)| {
            if grid.height == 0 || grid.width == 0 {
                return Err(Error::input("anchors", format!("a feature level of {grid} cells")));
            }
            let stride = Size { height: image.height / grid.height, width: image.width / grid.width };
            Ok(grid_anchors(&base_anchors(size, &cfg.ratios), grid, stride))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(height: usize, width: usize) -> Size {
        Size { height, width }
    }

    // The literals are torchvision 0.29's, from AnchorGenerator(sizes, (0.5, 1, 2)).
    #[test]
    fn base_anchors_are_torchvisions() {
        let r = [0.5, 1.0, 2.0];
        assert_eq!(base_anchors(32.0, &r), [[-23., -11., 23., 11.], [-16., -16., 16., 16.], [-11., -23., 11., 23.]]);
        assert_eq!(base_anchors(64.0, &r), [[-45., -23., 45., 23.], [-32., -32., 32., 32.], [-23., -45., 23., 45.]]);
        assert_eq!(
            base_anchors(512.0, &r),
            [[-362., -181., 362., 181.], [-256., -256., 256., 256.], [-181., -362., 181., 362.]]
        );
        // 5 / 2 and 7 / 2 are ties: they go to the even neighbour, 2 and 4.
        assert_eq!(base_anchors(5.0, &[1.0]), [[-2., -2., 2., 2.]]);
        assert_eq!(base_anchors(7.0, &[1.0]), [[-4., -4., 4., 4.]]);
    }

    #[test]
    fn the_grid_runs_over_rows_columns_anchors() {
        let base = base_anchors(16.0, &[0.5, 1.0, 2.0]);
        let all = grid_anchors(&base, size(2, 3), size(8, 4));
        assert_eq!(all.len(), 18);
        assert_eq!(&all[..3], &base[..]);
        assert_eq!(all[3 + 1], [-4., -8., 12., 8.], "second column: x moves by 4");
        assert_eq!(all[3 * 3 + 1], [-8., 0., 8., 16.], "second row: y moves by 8");
    }

    #[test]
    fn strides_are_whole_quotients_of_the_padded_image() {
        let cfg = AnchorConfig { sizes: vec![16.0, 32.0], ratios: vec![1.0] };
        // 65 // 17 = 3, 67 // 17 = 3; 65 // 9 = 7.
        let all = pyramid_anchors(&cfg, size(65, 67), &[size(17, 17), size(9, 9)]).unwrap();
        assert_eq!(all[0][17 + 1], [-8. + 3., -8. + 3., 8. + 3., 8. + 3.]);
        assert_eq!(all[1][9], [-16., -16. + 7., 16., 16. + 7.]);
        assert!(pyramid_anchors(&cfg, size(65, 67), &[size(17, 17)]).is_err());
        assert!(pyramid_anchors(&cfg, size(65, 67), &[size(17, 17), size(0, 9)]).is_err());
    }
}
