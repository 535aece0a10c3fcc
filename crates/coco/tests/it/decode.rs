//! Decoding: every pixel format to RGB8, and files that must be refused.

use std::path::Path;

use docent_coco::{DecodeOptions, Error, Rgb8, decode_bytes, decode_file, image_header};

use crate::support::data;

fn plain() -> DecodeOptions {
    DecodeOptions::default()
}

fn upright() -> DecodeOptions {
    plain().upright(true)
}

fn keep_truncated() -> DecodeOptions {
    plain().keep_truncated(true)
}

/// Centres of the four 8x8 patches of the fixtures (16x16 pixels), row by row.
const CENTRES: [(usize, usize); 4] = [(4, 4), (12, 4), (4, 12), (12, 12)];
/// Their colours: red, green, blue, near white.
const COLOURS: [[u8; 3]; 4] = [[200, 30, 40], [20, 180, 60], [10, 50, 220], [240, 240, 240]];
/// Their luma (ITU-R 601).
const LUMA: [u8; 4] = [82, 118, 57, 240];

fn check(name: &str, expected: [[u8; 3]; 4], tolerance: u8) {
    let image = decode_file(&data(name), plain()).unwrap();
    assert_eq!((image.width, image.height), (16, 16), "{name}");
    assert_eq!(image.data.len(), 16 * 16 * 3, "{name}");
    for ((x, y), want) in CENTRES.into_iter().zip(expected) {
        let got = image.pixel(x, y);
        let near = got.iter().zip(want).all(|(&g, w)| g.abs_diff(w) <= tolerance);
        assert!(near, "{name} at {x},{y}: {got:?}, expected {want:?}");
    }
}

#[test]
fn every_pixel_format_becomes_rgb() {
    let grey = LUMA.map(|v| [v; 3]);
    check("rgb.jpg", COLOURS, 2);
    check("progressive.jpg", COLOURS, 2);
    check("cmyk.jpg", COLOURS, 3);
    check("grey.jpg", grey, 2);
    check("palette.png", COLOURS, 0);
    check("alpha.png", COLOURS, 0);
    check("palette_alpha.png", COLOURS, 0);
    check("grey16.png", grey, 0);
    check("bits.png", [[0; 3], [255; 3], [0; 3], [255; 3]], 0);
}

#[test]
fn exif_rotation_is_not_applied_unasked() {
    // Its EXIF block asks for a quarter turn; the pixels are 32 wide and 16 high.
    let image = decode_file(&data("rotated.jpg"), plain()).unwrap();
    assert_eq!((image.width, image.height), (32, 16));
}

#[test]
fn upright_is_turned_as_exif_says() {
    let (flat, turned) =
        (decode_file(&data("rotated.jpg"), plain()).unwrap(), decode_file(&data("rotated.jpg"), upright()).unwrap());
    assert_eq!((turned.width, turned.height), (16, 32));
    // Orientation 6: the stored image is turned by a quarter, clockwise. Its lower left corner comes to the upper left.
    for (x, y) in [(0, 0), (5, 9), (15, 31)] {
        assert_eq!(turned.pixel(x, y), flat.pixel(y, 15 - x), "{x},{y}");
    }
    // A file without the block stays as it is, and a damaged one is an error as ever.
    assert_eq!(decode_file(&data("rgb.jpg"), upright()).unwrap(), decode_file(&data("rgb.jpg"), plain()).unwrap());
    assert!(decode_bytes(b"not an image", "x", upright()).is_err());
}

#[test]
fn a_jpeg_that_is_written_can_be_read() {
    let image = Rgb8::filled(31, 17, [200, 100, 50]);
    let read = decode_bytes(&image.to_jpeg().unwrap(), "made.jpg", plain()).unwrap();
    assert_eq!((read.width, read.height), (31, 17));
    assert!(read.data.iter().zip(&image.data).all(|(a, b)| a.abs_diff(*b) < 8));
    assert!(Rgb8 { width: 3, height: 3, data: vec![0; 5] }.to_jpeg().is_err());
}

fn reason(bytes: &[u8]) -> String {
    match decode_bytes(bytes, "photo.jpg", plain()) {
        Err(e @ Error::Decode { .. }) => {
            let text = e.to_string();
            assert!(text.contains("photo.jpg"), "{text}");
            text
        }
        other => panic!("decoded to {other:?}"),
    }
}

#[test]
fn damaged_files_are_errors_that_name_the_file() {
    assert!(reason(&[]).contains("0 bytes"));
    assert!(reason(b"GIF89a whatever follows").contains("GIF is not read; only JPEG, PNG"));
    assert!(reason(b"not an image").contains("none of JPEG, PNG"));
    for name in ["rgb.jpg", "progressive.jpg", "grey.jpg", "rotated.jpg", "palette.png", "grey16.png"] {
        let whole = std::fs::read(data(name)).unwrap();
        assert!(decode_bytes(&whole, name, plain()).is_ok());
        for cut in [whole.len() / 2, whole.len() * 3 / 4, whole.len() - 2, 4] {
            // A PNG's last chunk holds nothing; without its last two bytes the image is all there.
            if name.ends_with(".png") && cut == whole.len() - 2 {
                continue;
            }
            reason(&whole[..cut]);
        }
    }
}

#[test]
fn a_jpeg_with_bytes_after_its_end_is_read() {
    let mut bytes = std::fs::read(data("rgb.jpg")).unwrap();
    bytes.extend_from_slice(&[0, 0, 0xFF, 0x12, 7]);
    assert!(decode_bytes(&bytes, "rgb.jpg", plain()).is_ok());
}

/// A PNG header that claims `width` x `height`, with a correct checksum and nothing behind it.
pub fn claim(width: u32, height: u32) -> Vec<u8> {
    let mut header = b"IHDR".to_vec();
    header.extend_from_slice(&width.to_be_bytes());
    header.extend_from_slice(&height.to_be_bytes());
    header.extend_from_slice(&[8, 2, 0, 0, 0]);
    let mut crc = !0u32;
    for &byte in &header {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 };
        }
    }
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\x0d".to_vec();
    png.extend_from_slice(&header);
    png.extend_from_slice(&(!crc).to_be_bytes());
    png.extend_from_slice(b"\0\0\0\0IDAT\x35\xaf\x06\x1e");
    png
}

#[test]
fn an_image_that_claims_too_much_is_refused() {
    for (width, height) in [(60_000, 60_000), (16_385, 1), (1, 16_385)] {
        assert!(reason(&claim(width, height)).contains("16384"), "{width}x{height}");
    }
    // The same claim within the bounds fails for what it is: an image without data.
    assert!(!reason(&claim(16, 16)).contains("16384"));
}

#[test]
fn rgb8_flips_and_is_written() {
    let mut image = Rgb8::filled(3, 2, [1, 2, 3]);
    image.data[0..3].copy_from_slice(&[9, 8, 7]);
    let before = image.clone();
    image.flip_horizontal();
    assert_eq!(image.pixel(2, 0), [9, 8, 7]);
    assert_eq!(image.pixel(0, 0), [1, 2, 3]);
    image.flip_horizontal();
    assert_eq!(image, before);
    let mut one = Rgb8::filled(1, 1, [4, 5, 6]);
    one.flip_horizontal();
    assert_eq!(one.pixel(0, 0), [4, 5, 6]);

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.png");
    before.save_png(&path).unwrap();
    assert_eq!(decode_file(&path, plain()).unwrap(), before);
    let broken = Rgb8 { width: 5, height: 5, data: vec![0; 3] };
    assert!(broken.save_png(&path).unwrap_err().to_string().contains("75"));
    let nowhere = dir.path().join("no/such/folder/a.png");
    assert!(before.save_png(&nowhere).unwrap_err().to_string().contains("a.png"));
}

#[test]
fn webp_bmp_and_tiff_are_read_whatever_they_are_called() {
    let dir = tempfile::tempdir().unwrap();
    let mut image = Rgb8::filled(21, 13, [200, 30, 40]);
    image.data[..3].copy_from_slice(&[1, 2, 3]);
    let pixels = image::RgbImage::from_raw(21, 13, image.data.clone()).unwrap();
    for format in [image::ImageFormat::WebP, image::ImageFormat::Bmp, image::ImageFormat::Tiff] {
        let path = dir.path().join("called.jpg");
        pixels.save_with_format(&path, format).unwrap();
        assert_eq!(decode_file(&path, plain()).unwrap(), image, "{format:?}");
        let header = image_header(&path).unwrap();
        assert_eq!((header.width, header.height, header.is_marked()), (21, 13, false), "{format:?}");
    }
    let heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic";
    assert!(reason(heic).contains("HEIC/HEIF is not read"));
}

#[test]
fn a_header_tells_size_and_turn() {
    let header = image_header(&data("rotated.jpg")).unwrap();
    assert_eq!((header.width, header.height, header.upright_size()), (32, 16, (16, 32)));
    assert!(header.is_marked() && !image_header(&data("rgb.jpg")).unwrap().is_marked());
    assert!(image_header(Path::new("no.jpg")).unwrap_err().to_string().contains("no.jpg"));
}

#[test]
fn a_jpeg_without_its_last_bytes_is_kept_if_asked() {
    let whole = std::fs::read(data("rgb.jpg")).unwrap();
    let image = decode_bytes(&whole, "a.jpg", plain()).unwrap();
    // Without its end marker nothing is missing.
    assert!(decode_bytes(&whole[..whole.len() - 2], "a.jpg", plain()).is_err());
    assert_eq!(decode_bytes(&whole[..whole.len() - 2], "a.jpg", keep_truncated()).unwrap(), image);
    // Of a taller image more than a row of blocks.
    let tall = Rgb8 { width: 64, height: 64, data: (0..64 * 64 * 3).map(|i| (i * 7919 % 251) as u8).collect() };
    let tall = tall.to_jpeg().unwrap();
    assert!(decode_bytes(&tall[..tall.len() - 12], "a.jpg", keep_truncated()).is_ok());
    let error = decode_bytes(&tall[..tall.len() / 2], "a.jpg", keep_truncated()).unwrap_err().to_string();
    assert!(error.contains("more than its last row of blocks"), "{error}");
}
