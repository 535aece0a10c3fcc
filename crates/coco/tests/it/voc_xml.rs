//! One XML file of PASCAL VOC: what it says, what is wrong with it, and its encoding.

use docent_coco::{BoxReading, parse_voc};

pub fn object(name: &str, [x1, y1, x2, y2]: [i32; 4], more: &str) -> String {
    format!(
        "  <object>\n    <name>{name}</name>{more}\n    <part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>\n    \
         <bndbox><xmax>{x2}</xmax><xmin>{x1}</xmin><ymin>{y1}</ymin><ymax>{y2}</ymax></bndbox>\n  </object>\n"
    )
}

pub fn annotation(file: &str, objects: &str) -> String {
    format!(
        "<?xml version=\"1.0\"?>\n<annotation>\n  <filename>{file}</filename>\n  \
         <size><width>32</width><height>20.0</height></size>\n{objects}</annotation>\n"
    )
}

#[test]
fn one_file_says_what_it_says() {
    let text = annotation(
        "a.jpg",
        &(object("cat", [2, 3, 10, 12], "<difficult>0</difficult>")
            + &object("dog", [7, 7, 7, 7], "<difficult>1</difficult>")),
    );
    let file = parse_voc(text.as_bytes(), None).unwrap();
    assert_eq!((file.filename.as_deref(), file.size), (Some("a.jpg"), (32, 20)));
    let objects: Vec<_> = file.objects.iter().map(|o| (o.name.as_str(), o.corners, o.difficult, o.line)).collect();
    // The part's name and box are not the object's.
    assert_eq!(objects, [("cat", [2.0, 3.0, 10.0, 12.0], false, 5), ("dog", [7.0; 4], true, 10)]);
    // Pixels 2 to 10, counted from 1, are the columns 1..10 counted by their edges.
    let bbox = |reading: BoxReading, i: usize| reading.bbox(file.objects[i].corners, 32.0, 20.0);
    assert_eq!(bbox(BoxReading::Pixels, 0), [1.0, 2.0, 9.0, 10.0]);
    assert_eq!(bbox(BoxReading::Edges, 0), [2.0, 3.0, 8.0, 9.0]);
    // A click is no object under either.
    assert_eq!(bbox(BoxReading::Pixels, 1), [6.0, 6.0, 0.0, 0.0]);
    assert_eq!(bbox(BoxReading::Edges, 1), [7.0, 7.0, 0.0, 0.0]);
    assert_eq!(parse_voc(b"<annotation/>", None).unwrap().size, (0, 0));
}

#[test]
fn what_is_no_annotation_says_where_and_why() {
    let good = annotation("a.jpg", &object("cat", [2, 3, 10, 12], ""));
    assert!(parse_voc(good.as_bytes(), None).is_ok());
    let cases = [
        (good[..good.len() / 2].to_owned(), ""),
        (String::new(), ""),
        ("{\"images\": []}".to_owned(), ""),
        (good.replace("annotation>", "annotations>"), "<annotations>"),
        (good.replace("<name>cat</name>", ""), "line 5: <object> without <name>"),
        (good.replace("<name>cat</name>", "<name> </name>"), "empty <name>"),
        (good.replace("<xmin>2</xmin>", ""), "line 8: <bndbox> without <xmin>"),
        (good.replace("<xmin>2</xmin>", "<xmin>two</xmin>"), "line 8: <xmin> holds \"two\""),
        (good.replace("<xmin>2</xmin>", "<xmin>NaN</xmin>"), "no finite number"),
        (good.replace("<xmin>2</xmin>", "<xmin>1e999</xmin>"), "no finite number"),
        (good.replace("<annotation>", "<!DOCTYPE a [<!ENTITY b \"c\">]><annotation>"), "DTD"),
        (
            good.replace("<name>cat</name>", "<name>cat</name><robndbox><cx>1</cx></robndbox>")
                .replace("<bndbox>", "<box>")
                .replace("</bndbox>", "</box>"),
            "oriented box",
        ),
        (good.replace("<?xml version=\"1.0\"?>", "<?xml version=\"1.0\" encoding=\"klingon\"?>"), "klingon"),
    ];
    for (text, part) in cases {
        let error = parse_voc(text.as_bytes(), None).unwrap_err();
        assert!(!error.is_empty() && error.contains(part), "{part}: {error}");
    }
    // What is not UTF-8 is of no matter where nothing is read.
    assert!(parse_voc(b"<annotation><path>\xE9</path></annotation>", None).is_ok());
    let text = good.replace("cat", "caf\u{e9}");
    let latin: Vec<u8> = text.chars().map(|c| c as u8).collect();
    let error = parse_voc(&latin, None).unwrap_err();
    assert!(error.contains("UTF-8") && error.contains("--encoding windows-1252"), "{error}");
    // No size, or one that makes no sense, is none: the file's is taken.
    for size in ["0", "-3", "", "wide"] {
        let text = good.replace("<width>32</width>", &format!("<width>{size}</width>"));
        assert_eq!(parse_voc(text.as_bytes(), None).unwrap().size, (0, 20), "{size}");
    }
}

#[test]
fn encodings_as_declared_marked_or_named() {
    let text = annotation("a.jpg", &object("ni\u{f1}o", [2, 3, 10, 12], ""));
    let latin = |text: &str| text.chars().map(|c| c as u8).collect::<Vec<u8>>();
    let name = |bytes: &[u8], encoding: Option<&'static encoding_rs::Encoding>| {
        parse_voc(bytes, encoding).unwrap().objects[0].name.clone()
    };
    let declared = text.replace("version=\"1.0\"", "version='1.0' encoding='ISO-8859-1'");
    assert_eq!(name(&latin(&declared), None), "ni\u{f1}o");
    assert_eq!(name(&latin(&text), Some(encoding_rs::WINDOWS_1252)), "ni\u{f1}o");
    let utf16 = |mark: bool, big: bool| {
        let units = mark.then_some(0xFEFF).into_iter().chain(text.encode_utf16());
        units.flat_map(|u| if big { u.to_be_bytes() } else { u.to_le_bytes() }).collect::<Vec<u8>>()
    };
    for (mark, big) in [(true, false), (true, true), (false, false), (false, true)] {
        assert_eq!(name(&utf16(mark, big), None), "ni\u{f1}o", "{mark} {big}");
    }
    // A mark wins over a declaration that it contradicts, and a file of bytes is no UTF-16.
    let wrong = text.replace("version=\"1.0\"", "version=\"1.0\" encoding=\"utf-16\"");
    assert_eq!(name(wrong.as_bytes(), None), "ni\u{f1}o");
    let marked = [b"\xEF\xBB\xBF", declared.as_bytes()].concat();
    assert_eq!(name(&marked, None), "ni\u{f1}o");
    let doctype = text.replace("<annotation>", "<!DOCTYPE annotation SYSTEM \"voc.dtd\"><annotation>");
    assert_eq!(name(doctype.as_bytes(), None), "ni\u{f1}o");
}
