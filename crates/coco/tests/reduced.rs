//! What the crate does with any set of features, and what it says of a format whose reader is left out.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::fs;
use std::path::Path;

use docent_coco::{
    Annotation, Category, Dataset, DecodeOptions, Detection, Format, Image, OpenOptions, ReadConfig, Resize, Rgb8,
    decode_file, open_dir, read_results, write_results,
};

/// Saves an image of 64 x 48 pixels. Images of one `tint` are copies.
fn save_image(path: &Path, tint: u8) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    Rgb8::filled(64, 48, [90, 120, tint]).save_png(path).unwrap();
}

#[test]
fn images_are_decoded_and_resized_and_coco_folders_opened() {
    let dir = tempfile::tempdir().unwrap();
    for (split, id) in [("train", 1), ("val", 2)] {
        let file_name = format!("{split}.png");
        save_image(&dir.path().join("images").join(&file_name), id as u8);
        let images = vec![Image { id, file_name, width: 64, height: 48 }];
        let bbox = [8.0, 8.0, 20.0, 16.0];
        let annotations = vec![Annotation { id, image_id: id, category_id: 18, bbox, area: 320.0, iscrowd: false }];
        let categories = vec![Category { id: 18, name: "dog".into() }];
        Dataset::from_parts(split, dir.path().join("images"), images, annotations, categories)
            .unwrap()
            .save(&dir.path().join(format!("annotations/instances_{split}.json")))
            .unwrap();
    }
    let splits = open_dir(dir.path(), &OpenOptions::default()).unwrap();
    assert_eq!((splits.train.len(), splits.val.len()), (1, 1));
    let image = decode_file(&splits.val.image_path(0), DecodeOptions::default()).unwrap();
    let planes = Resize::default().shortest(24).longest(32).apply(&image).unwrap();
    assert_eq!((planes.height, planes.width), (24, 32));

    let detections = [Detection { image_id: 2, category_id: 18, bbox: [8.0, 8.0, 20.0, 16.0], score: 0.75 }];
    let path = dir.path().join("results.json");
    write_results(&path, &detections).unwrap();
    assert_eq!(read_results(&path).unwrap(), detections);
}

/// Opens a folder of nine images with these annotation files, or gives the error.
fn open(annotations: &[(String, String)], options: &OpenOptions) -> Result<usize, String> {
    let dir = tempfile::tempdir().unwrap();
    for i in 0..9 {
        save_image(&dir.path().join(format!("images/{i}.png")), i);
    }
    for (name, text) in annotations {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    open_dir(dir.path(), options).map(|splits| splits.train.len() + splits.val.len()).map_err(|e| e.to_string())
}

#[test]
fn a_format_is_read_or_refused_by_the_name_of_its_feature() {
    let xml = |i: usize| {
        "<annotation><filename>I.png</filename><size><width>64</width><height>48</height><depth>3</depth></size>\
         <object><name>dog</name><bndbox><xmin>9</xmin><ymin>9</ymin><xmax>28</xmax><ymax>24</ymax></bndbox></object>\
         </annotation>"
            .replace('I', &i.to_string())
    };
    let voc: Vec<_> = (0..9).map(|i| (format!("annotations/{i}.xml"), xml(i))).collect();
    let mut yolo: Vec<_> = (0..9).map(|i| (format!("labels/{i}.txt"), "0 0.5 0.5 0.25 0.25\n".to_owned())).collect();
    yolo.push(("data.yaml".to_owned(), "names: [dog]\n".to_owned()));
    let rows: String = (0..9).map(|i| format!("{i}.png,64,48,dog,8,8,28,24\n")).collect();
    let csv = [("labels.csv".to_owned(), format!("filename,width,height,class,xmin,ymin,xmax,ymax\n{rows}"))];
    for (format, files, feature, is_on) in [
        (Format::Voc, &voc[..], "voc", cfg!(feature = "voc")),
        (Format::Yolo, &yolo, "yolo", cfg!(feature = "yolo")),
        (Format::Csv, &csv, "csv", cfg!(feature = "csv")),
    ] {
        let chosen = OpenOptions::default().read(ReadConfig::default().format(format));
        if is_on {
            assert_eq!(open(files, &chosen), Ok(9), "{feature}");
            assert_eq!(open(files, &OpenOptions::default()), Ok(9), "{feature}");
        } else {
            let error = open(files, &chosen).unwrap_err();
            assert!(error.contains(format.name()) && error.contains(&format!("`{feature}`")), "{error}");
            let error = open(files, &OpenOptions::default()).unwrap_err();
            let wanted = if format == Format::Yolo { "no annotations" } else { format.name() };
            assert!(error.contains(wanted), "{error}");
        }
    }
}
