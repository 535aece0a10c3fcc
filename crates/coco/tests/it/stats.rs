//! Figures of a split, their chart, a choice of images, one file made two.

use docent_coco::{Annotation, Dataset, SplitConfig, Stats, chart, split_by_name, split_json};

use crate::support::{annotation, categories, image};

fn set() -> Dataset {
    let images = (1..=4).map(|id| image(id, &format!("{id}.png"), 100 * id as u32, 100)).collect();
    let boxes = vec![
        annotation(1, 1, 2, [0.0, 0.0, 10.0, 40.0]),
        annotation(2, 1, 2, [0.0, 0.0, 40.0, 10.0]),
        annotation(3, 2, 9, [0.0, 0.0, 50.0, 50.0]),
        annotation(4, 3, 2, [0.0, 0.0, 100.0, 100.0]),
        Annotation { iscrowd: true, ..annotation(5, 3, 9, [0.0, 0.0, 9.0, 9.0]) },
        annotation(6, 3, 9, [5.0, 5.0, 0.0, 9.0]),
    ];
    Dataset::from_parts("made", "nowhere", images, boxes, categories()).unwrap()
}

#[test]
fn figures_are_those_of_the_boxes() {
    let stats = Stats::of(&set());
    assert_eq!((stats.images, stats.empty_images, stats.boxes, stats.crowds, stats.degenerate), (4, 1, 4, 1, 1));
    assert_eq!((stats.areas.small, stats.areas.medium, stats.areas.large), (2, 1, 1));
    assert_eq!(stats.areas.shares(), [0.5, 0.25, 0.25]);
    assert_eq!((stats.side.least, stats.side.median, stats.side.most), (20.0, 20.0, 100.0));
    assert_eq!((stats.aspect.least, stats.aspect.most), (0.25, 4.0));
    assert_eq!((stats.boxes_an_image.mean, stats.boxes_an_image.most), (1.0, 2.0));
    assert_eq!(stats.relative_side.least, 0.2);
    assert_eq!(
        (stats.width.least, stats.width.most, stats.height.mean, stats.distinct_sizes),
        (100.0, 400.0, 100.0, 4)
    );
    let classes: Vec<_> = stats.classes.iter().map(|c| (c.id, c.boxes, c.images, c.areas.large)).collect();
    assert_eq!(classes, [(2, 3, 2, 1), (9, 1, 1, 0)]);
    let json: serde_json::Value = serde_json::to_value(&stats).unwrap();
    assert_eq!((json["classes"][0]["name"].as_str(), json["side"]["median"].as_f64()), (Some("cat"), Some(20.0)));
    // Nothing at all is no fault.
    let none = Stats::of(&Dataset::from_parts("none", "x", vec![], vec![], vec![]).unwrap());
    assert_eq!((none.images, none.side.most), (0, 0.0));
    chart(&[("none", &none)]).unwrap();
}

#[test]
fn the_chart_names_what_it_shows() {
    let stats = Stats::of(&set());
    let svg = chart(&[("training", &stats), ("held-out", &stats)]).unwrap();
    let fits = svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>");
    assert!(fits && ["training: 4 images, 4 boxes", "held-out", "cat", "dog", "1:1"].iter().all(|t| svg.contains(t)));
    // Two splits of two classes: four bars, and as many again as the histograms have.
    assert!(svg.matches("<rect").count() > 12);
    assert!(chart(&[]).is_err());
}

#[test]
fn a_choice_is_seeded_and_moves_little() {
    let images = |n: u64| (1..=n).map(|id| image(id, &format!("{id}.png"), 9, 9)).collect::<Vec<_>>();
    let boxes = |n: u64| (1..=n).step_by(2).map(|id| annotation(id, id, 2, [1.0, 1.0, 2.0, 2.0])).collect::<Vec<_>>();
    let make = |n| Dataset::from_parts("made", "x", images(n), boxes(n), categories()).unwrap();
    let set = make(40);
    let chosen = set.choose_images(10, 7, None);
    assert_eq!((chosen.len(), set.choose_images(10, 7, None)), (10, chosen.clone()));
    assert!(chosen.is_sorted() && chosen != set.choose_images(10, 8, None));
    assert_eq!(set.choose_images(99, 7, None), (0..40).collect::<Vec<_>>());
    // Positions 0, 2, .. hold ids 1, 3, ..
    assert!(set.choose_images(10, 7, Some(2)).iter().all(|i| i % 2 == 0));
    assert!(set.choose_images(10, 7, Some(9)).is_empty());
    let more = make(44).choose_images(10, 7, None);
    assert!(more.iter().filter(|i| chosen.contains(i)).count() >= 6);
}

/// 100 images with a cat each, of which the first ten have a dog.
fn file() -> String {
    let images: Vec<String> = (1..=100)
        .map(|id| format!(r#"{{"id":{id},"file_name":"{id}.png","width":20,"height":20,"flickr_url":"x{id}"}}"#))
        .collect();
    let object = |id: u64, image: u64, class: u64| {
        format!(
            r#"{{"id":{id},"image_id":{image},"category_id":{class},"bbox":[1,1,5,5],"area":20,"segmentation":[[1,2,3]]}}"#
        )
    };
    let mut objects: Vec<String> = (1..=100).map(|id| object(id, id, 2)).collect();
    objects.extend((1..=10).map(|id| object(100 + id, id, 9)));
    format!(
        r#"{{"licenses":[{{"id":1}}],"images":[{}],"annotations":[{}],"categories":[{{"id":2,"name":"cat","supercategory":"s"}},{{"id":9,"name":"dog"}}]}}"#,
        images.join(","),
        objects.join(",")
    )
}

fn read(json: &str) -> Dataset {
    Dataset::from_json(json.as_bytes(), "x.json".as_ref(), "x".as_ref(), &Default::default()).unwrap()
}

#[test]
fn one_file_becomes_two_and_loses_nothing() {
    let text = file();
    let whole = read(&text);
    let [train, val] = split_json(text.as_bytes(), "all.json".as_ref(), &SplitConfig::default()).unwrap();
    let (a, b) = (read(&train.json), read(&val.json));
    assert_eq!((a.len(), b.len()), (train.images, val.images));
    let (by_name, held_out) = split_by_name(&whole, 0.2).unwrap();
    assert_eq!((a.images(), b.images()), (by_name.images(), held_out.images()));
    assert_eq!((a.all_annotations(), b.all_annotations()), (by_name.all_annotations(), held_out.all_annotations()));
    for side in [&train, &val] {
        let json: serde_json::Value = serde_json::from_str(&side.json).unwrap();
        assert_eq!(json["licenses"][0]["id"], 1);
        assert_eq!(json["categories"][0]["supercategory"], "s");
        assert_eq!(json["annotations"][0]["segmentation"][0][2], 3);
        assert!(json["images"][0]["flickr_url"].is_string());
    }
}

#[test]
fn stratified_a_rare_class_is_on_both_sides() {
    let text = file();
    let config = SplitConfig::default().val_share(0.3).stratify(true);
    let [train, val] = split_json(text.as_bytes(), "all.json".as_ref(), &config).unwrap();
    let dogs = |json: &str| read(json).all_annotations().iter().filter(|a| a.category_id == 9).count();
    assert_eq!((train.images, val.images, dogs(&train.json), dogs(&val.json)), (70, 30, 7, 3));
    assert_eq!(split_json(text.as_bytes(), "all.json".as_ref(), &config).unwrap()[1], val);
}

#[test]
fn what_cannot_be_split_says_why() {
    let fails = |text: &str, share: f64| {
        let config = SplitConfig::default().val_share(share);
        split_json(text.as_bytes(), "all.json".as_ref(), &config).unwrap_err().to_string()
    };
    assert!(fails(&file(), 0.0).contains("between 0 and 1"));
    assert!(fails(&file(), f64::NAN).contains("between 0 and 1"));
    // However small the share, an image is held out.
    let tiny = SplitConfig::default().val_share(0.000001);
    assert_eq!(split_json(file().as_bytes(), "all.json".as_ref(), &tiny).unwrap()[1].images, 1);
    assert!(fails("{", 0.5).contains("all.json"));
    assert!(fails(&file().replace(r#""image_id":7,"#, r#""image_id":777,"#), 0.5).contains("777"));
}

#[test]
fn a_split_is_never_written_over_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let [train, _] = split_json(file().as_bytes(), "all.json".as_ref(), &SplitConfig::default()).unwrap();
    let path = dir.path().join("annotations/instances_train.json");
    train.save(&path).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), train.json);
    assert!(train.save(&path).unwrap_err().to_string().contains("there already"));
}
