//! A seeded choice of a data set's images.

use rand::RngCore;

use crate::dataset::Dataset;
use crate::rng;

impl Dataset {
    /// Positions of at most `count` images, chosen by a hash of (seed, image id) and given in the order of the file; of those that
    /// hold an object of the category `category_id`, where one is named. What is chosen of an image does not depend on the others,
    /// so that adding images moves few.
    pub fn choose_images(&self, count: usize, seed: u64, category_id: Option<u64>) -> Vec<usize> {
        let holds = |i: &usize| category_id.is_none_or(|id| self.annotations(*i).iter().any(|a| a.category_id == id));
        let draw = |i: usize| rng::keyed(seed, "pick", 0, self.image(i).id).next_u64();
        let mut drawn: Vec<(u64, usize)> = (0..self.len()).filter(holds).map(|i| (draw(i), i)).collect();
        drawn.sort_unstable();
        let mut chosen: Vec<usize> = drawn.into_iter().take(count).map(|(_, i)| i).collect();
        chosen.sort_unstable();
        chosen
    }
}
