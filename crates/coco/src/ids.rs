//! Image ids from file names, for formats without ids of their own.

use std::collections::HashSet;

/// An id for each name (without its extension): the number that ends it (`000000000139` is 139, `BloodImage_00007` is 7) where each
/// name has one of its own, else 1, 2, ... in the order given.
///
/// ```
/// assert_eq!(docent_coco::ids_of_names(&["b_00012", "7"]), [12, 7]);
/// assert_eq!(docent_coco::ids_of_names(&["2008_000003", "2009_000003"]), [1, 2]);
/// ```
pub fn ids_of_names(names: &[impl AsRef<str>]) -> Vec<u64> {
    let named: Option<Vec<u64>> = names.iter().map(|name| number_at_end(name.as_ref())).collect();
    let distinct = |ids: &Vec<u64>| ids.iter().collect::<HashSet<_>>().len() == ids.len();
    named.filter(distinct).unwrap_or_else(|| (1..=names.len() as u64).collect())
}

fn number_at_end(name: &str) -> Option<u64> {
    name[name.trim_end_matches(|c: char| c.is_ascii_digit()).len()..].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_from_names_where_these_tell_the_images_apart() {
        assert_eq!(number_at_end("000000000139"), Some(139));
        assert_eq!(number_at_end("BloodImage_00007"), Some(7));
        assert_eq!(number_at_end("zelle-é12"), Some(12));
        assert_eq!(number_at_end("cell"), None);
        assert_eq!(number_at_end("99999999999999999999999"), None);
        assert_eq!(ids_of_names(&["7", "x3"]), [7, 3]);
        assert_eq!(ids_of_names(&["7", "7"]), [1, 2]);
        assert_eq!(ids_of_names(&["2", "cell"]), [1, 2]);
    }
}
