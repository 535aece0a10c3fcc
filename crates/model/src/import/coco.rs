//! COCO's categories as torchvision's detectors count them: 91 classes, of which 80 have a name.

use docent_coco::Category;

/// Classes of a detector trained on COCO in torchvision's way: the background and ids 1 to 90.
pub(super) const CLASSES: usize = 91;

/// Ids and names, from COCO's `instances_val2017.json`.
const NAMES: [(u64, &str); 80] = [
    (1, "person"),
    (2, "bicycle"),
    (3, "car"),
    (4, "motorcycle"),
    (5, "airplane"),
    (6, "bus"),
    (7, "train"),
    (8, "truck"),
    (9, "boat"),
    (10, "traffic light"),
    (11, "fire hydrant"),
    (13, "stop sign"),
    (14, "parking meter"),
    (15, "bench"),
    (16, "bird"),
    (17, "cat"),
    (18, "dog"),
    (19, "horse"),
    (20, "sheep"),
    (21, "cow"),
    (22, "elephant"),
    (23, "bear"),
    (24, "zebra"),
    (25, "giraffe"),
    (27, "backpack"),
    (28, "umbrella"),
    (31, "handbag"),
    (32, "tie"),
    (33, "suitcase"),
    (34, "frisbee"),
    (35, "skis"),
    (36, "snowboard"),
    (37, "sports ball"),
    (38, "kite"),
    (39, "baseball bat"),
    (40, "baseball glove"),
    (41, "skateboard"),
    (42, "surfboard"),
    (43, "tennis racket"),
    (44, "bottle"),
    (46, "wine glass"),
    (47, "cup"),
    (48, "fork"),
    (49, "knife"),
    (50, "spoon"),
    (51, "bowl"),
    (52, "banana"),
    (53, "apple"),
    (54, "sandwich"),
    (55, "orange"),
    (56, "broccoli"),
    (57, "carrot"),
    (58, "hot dog"),
    (59, "pizza"),
    (60, "donut"),
    (61, "cake"),
    (62, "chair"),
    (63, "couch"),
    (64, "potted plant"),
    (65, "bed"),
    (67, "dining table"),
    (70, "toilet"),
    (72, "tv"),
    (73, "laptop"),
    (74, "mouse"),
    (75, "remote"),
    (76, "keyboard"),
    (77, "cell phone"),
    (78, "microwave"),
    (79, "oven"),
    (80, "toaster"),
    (81, "sink"),
    (82, "refrigerator"),
    (84, "book"),
    (85, "clock"),
    (86, "vase"),
    (87, "scissors"),
    (88, "teddy bear"),
    (89, "hair drier"),
    (90, "toothbrush"),
];

/// What the name of an id that COCO does not use begins with; torchvision calls them `N/A`, and names must differ here.
const UNUSED: &str = "N/A ";

/// Categories of the classes 1 to 90, so that a class is its COCO id.
pub(super) fn categories() -> Vec<Category> {
    let named = |id: u64| NAMES.iter().find(|n| n.0 == id).map_or_else(|| format!("{UNUSED}{id}"), |n| n.1.to_owned());
    (1..CLASSES as u64).map(|id| Category { id, name: named(id) }).collect()
}

/// Does this category stand for an id without a name?
pub(super) fn is_unused(category: &Category) -> bool {
    category.name.starts_with(UNUSED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_cocos_ids_with_ten_gaps() {
        let all = categories();
        assert!(all.len() == 90 && all.iter().zip(1u64..).all(|(c, id)| c.id == id));
        let unused: Vec<u64> = all.iter().filter(|c| is_unused(c)).map(|c| c.id).collect();
        assert_eq!(unused, [12, 26, 29, 30, 45, 66, 68, 69, 71, 83]);
        assert_eq!((all[0].name.as_str(), all[89].name.as_str()), ("person", "toothbrush"));
    }
}
