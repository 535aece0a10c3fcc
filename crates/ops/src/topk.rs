//! The order of scores, and the k greatest of them.

/// A number that grows as the score falls: ascending in it is descending by score, NaN last.
///
/// The bits of a float grow with its size once the sign is folded in; -0 is folded onto 0, since the two are equal.
fn rank(score: f32) -> u32 {
    if score.is_nan() {
        return u32::MAX;
    }
    let bits = (score + 0.0).to_bits();
    let rising = if bits >> 31 == 0 { bits | 1 << 31 } else { !bits };
    !rising
}

/// Indices of all scores: greatest first, ties by lower index, NaN last.
pub(crate) fn descending(scores: &[f32]) -> Vec<usize> {
    top_k(scores, scores.len())
}

/// Indices of the `k` greatest scores: greatest first, ties by lower index, NaN after everything else.
///
/// All of them, in that order, if there are fewer than `k`. Takes O(n + k log k).
pub fn top_k(scores: &[f32], k: usize) -> Vec<usize> {
    if k == 0 {
        return Vec::new();
    }
    let mut keys: Vec<(u32, usize)> = scores.iter().enumerate().map(|(i, &s)| (rank(s), i)).collect();
    if k < keys.len() {
        keys.select_nth_unstable(k - 1);
        keys.truncate(k);
    }
    // No two keys are equal, so the unstable sort has one result.
    keys.sort_unstable();
    keys.into_iter().map(|(_, i)| i).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ties_go_to_the_lower_index() {
        assert_eq!(top_k(&[1.0, 3.0, 3.0, 2.0, 3.0], 2), [1, 2]);
        assert_eq!(top_k(&[0.0, -0.0, 0.0], 3), [0, 1, 2]);
        assert_eq!(top_k(&[0.5; 4], 3), [0, 1, 2]);
    }

    #[test]
    fn extremes() {
        let s = [f32::NAN, -1.0, f32::INFINITY, f32::NEG_INFINITY, 0.0, -f32::NAN];
        assert_eq!(top_k(&s, 6), [2, 4, 1, 3, 0, 5]);
        assert!(top_k(&s, 0).is_empty());
        assert!(top_k(&[], 3).is_empty());
        assert_eq!(top_k(&[1.0, 2.0], 100), [1, 0]);
    }

    /// Candle's CUDA argsort fails above 8,192 columns; a pyramid has 200,000 anchors.
    #[test]
    fn a_whole_pyramid_of_scores() {
        let s: Vec<f32> = (0..200_003u64).map(|i| (i * 7_919 % 200_003) as f32).collect();
        let top = top_k(&s, 1000);
        for (rank, &i) in top.iter().enumerate() {
            assert_eq!(s[i], (200_002 - rank) as f32);
        }
    }

    proptest! {
        #[test]
        fn is_the_head_of_a_stable_sort(v in prop::collection::vec(-4i32..4, 0..60), k in 0usize..70) {
            let s: Vec<f32> = v.iter().map(|&x| x as f32 / 2.0).collect();
            let mut all: Vec<usize> = (0..s.len()).collect();
            all.sort_by(|&a, &b| s[b].total_cmp(&s[a]));
            all.truncate(k);
            prop_assert_eq!(top_k(&s, k), all);
        }
    }
}
