//! Resizing against values that torchvision and PIL gave (tests/data/resize.json), and on odd sizes.

use docent_coco::{Planes, Resize, ResizeRule, Rgb8};
use proptest::prelude::*;
use serde_json::Value;

use crate::support::data;

/// The image the values were made from.
fn test_image(height: usize, width: usize) -> Rgb8 {
    let mut data = Vec::with_capacity(height * width * 3);
    for y in 0..height {
        for x in 0..width {
            for c in 0..3 {
                let v = x * 37 + y * 91 + c * 53 + x * y * 7 + (x * x * 3 + y * y * 5) / 4;
                data.push((v % 256) as u8);
            }
        }
    }
    Rgb8 { width, height, data }
}

fn golden() -> Value {
    let text = std::fs::read_to_string(data("resize.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn number(v: &Value) -> usize {
    v.as_u64().unwrap() as usize
}

#[test]
fn both_rules_agree_with_their_models() {
    let golden = golden();
    let cases = golden["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 7);
    for case in cases {
        let image = test_image(number(&case["height"]), number(&case["width"]));
        let mut resize = Resize::default()
            .shortest(number(&case["shortest"]) as u32)
            .longest(number(&case["longest"]) as u32)
            .rule(ResizeRule::Torchvision);
        let planes = resize.apply(&image).unwrap();
        let size = (number(&case["out"][0]), number(&case["out"][1]));
        assert_eq!((planes.height, planes.width), size);
        let expected = case["torchvision"].as_array().unwrap();
        assert_eq!(planes.data.len(), expected.len());
        for (i, (&got, want)) in planes.data.iter().zip(expected).enumerate() {
            let want = want.as_f64().unwrap() as f32;
            assert!((got - want).abs() < 1e-6, "{size:?} value {i}: {got}, torchvision {want}");
        }

        resize.rule = ResizeRule::Antialias;
        let planes = resize.apply(&image).unwrap();
        assert_eq!((planes.height, planes.width), size);
        let pil = case["pil"].as_array().unwrap();
        let n = size.0 * size.1;
        for (i, want) in pil.iter().enumerate() {
            let got = planes.data[(i % 3) * n + i / 3] * 255.0;
            let want = want.as_f64().unwrap() as f32;
            assert!((got - want).abs() < 1.01, "{size:?} value {i}: {got}, PIL {want}");
        }
    }
}

#[test]
fn sizes_agree_with_torchvision() {
    let golden = golden();
    let sizes = golden["sizes"].as_array().unwrap();
    assert_eq!(sizes.len(), 300);
    for row in sizes {
        let [shortest, longest, h, w, oh, ow] = std::array::from_fn(|i| number(&row[i]));
        let resize = Resize::default().shortest(shortest as u32).longest(longest as u32).rule(ResizeRule::Torchvision);
        assert_eq!(resize.output_size(h, w), (oh, ow), "{row}");
    }
}

#[test]
fn extreme_shapes_keep_a_pixel() {
    for rule in [ResizeRule::Torchvision, ResizeRule::Antialias] {
        let resize = Resize::default().shortest(8).longest(20).rule(rule);
        for (h, w, out) in [(1, 1, (8, 8)), (1, 4000, (1, 20)), (4000, 1, (20, 1)), (2, 300, (1, 20))] {
            let planes = resize.apply(&test_image(h, w)).unwrap();
            assert_eq!((planes.height, planes.width), out);
            assert_eq!(planes.data.len(), 3 * out.0 * out.1);
        }
    }
}

#[test]
fn the_same_size_keeps_every_value() {
    let image = test_image(9, 12);
    for rule in [ResizeRule::Torchvision, ResizeRule::Antialias] {
        let resize = Resize::default().shortest(9).longest(12).rule(rule);
        let planes = resize.apply(&image).unwrap();
        assert_eq!(planes, Planes::from_rgb8(&image));
        assert_eq!(planes.data[9 * 12 + 5], f32::from(image.pixel(5, 0)[1]) / 255.0);
    }
}

#[test]
fn settings_and_images_are_checked() {
    for (shortest, longest) in [(0, 10), (10, 0), (20_000, 10), (10, 20_000)] {
        let resize = Resize::default().shortest(shortest).longest(longest);
        let text = resize.validate().unwrap_err().to_string();
        assert!(text.contains("between 1 and 16384"), "{text}");
    }
    Resize::default().validate().unwrap();
    let broken = Rgb8 { width: 4, height: 4, data: vec![0; 47] };
    assert!(Resize::default().apply(&broken).is_err());
    let none = Rgb8 { width: 0, height: 4, data: vec![] };
    assert!(Resize::default().apply(&none).is_err());
    let read: Resize = serde_json::from_str(r#"{"shortest": 100, "rule": "antialias"}"#).unwrap();
    assert_eq!((read.shortest, read.longest, read.rule), (100, 1333, ResizeRule::Antialias));
    assert!(serde_json::from_str::<Resize>(r#"{"shortes": 100}"#).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// One colour stays that colour, for any sizes; sides obey the bound.
    #[test]
    fn one_colour_stays(h in 1usize..60, w in 1usize..60, shortest in 1u32..50, longest in 1u32..80, colour: [u8; 3]) {
        for rule in [ResizeRule::Torchvision, ResizeRule::Antialias] {
            let resize = Resize::default().shortest(shortest).longest(longest).rule(rule);
            let planes = resize.apply(&Rgb8::filled(w, h, colour)).unwrap();
            prop_assert!(planes.height.max(planes.width) <= longest as usize);
            prop_assert!(planes.height.min(planes.width) <= shortest.max(1) as usize);
            let n = planes.height * planes.width;
            for (i, v) in planes.data.iter().enumerate() {
                prop_assert!((v * 255.0 - f32::from(colour[i / n])).abs() < 1e-3);
            }
        }
    }
}

#[test]
fn shrinking_keeps_the_form_and_never_enlarges() {
    let image = Rgb8::filled(300, 100, [10, 20, 30]);
    let small = image.shrunk(60).unwrap();
    assert_eq!((small.width, small.height, small.pixel(59, 19)), (60, 20, [10, 20, 30]));
    assert_eq!(image.shrunk(300).unwrap(), image);
    let line = Rgb8::filled(1000, 2, [1, 2, 3]).shrunk(10).unwrap();
    assert_eq!((line.width, line.height), (10, 1));
}
