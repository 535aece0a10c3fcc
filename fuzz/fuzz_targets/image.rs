//! An image file of any bytes: an error, or as many pixels as its size says, within the limits.
#![no_main]

use docent_coco::{MAX_PIXELS, MAX_SIDE, Resize, decode_bytes};
use libfuzzer_sys::fuzz_target;

// A decoder that panics is caught and becomes an error; the fuzzer's own hook would end the process before that. What is not caught
// still ends it.
fn tell_only() {
    std::panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
}

fuzz_target!(init: tell_only(), |bytes: &[u8]| {
    let image = match decode_bytes(bytes, "fuzz.jpg") {
        Ok(image) => image,
        Err(error) => {
            assert!(error.to_string().contains("fuzz.jpg"));
            return;
        }
    };
    assert!(image.width > 0 && image.height > 0);
    assert!(image.width.max(image.height) <= MAX_SIDE as usize);
    assert!((image.width * image.height) as u64 <= MAX_PIXELS);
    assert_eq!(image.data.len(), image.width * image.height * 3);
    let planes = Resize { shortest: 24, longest: 32, ..Resize::default() }.apply(&image).expect("a whole image");
    assert_eq!(planes.data.len(), 3 * planes.height * planes.width);
    assert!(planes.data.iter().all(|v| (0.0..=1.0).contains(v)));
});
