//! What must hold for any request body that `docent serve` takes apart. The fuzz target calls it, and so does a test, with every seed.

#[path = "../../crates/cli/src/serve/upload.rs"]
mod way;

use futures_util::FutureExt;
use multer::bytes::Bytes;
use way::{Refusal, Way};

/// The largest image here.
const MOST: usize = 4096;

/// A content type in the first line, and a body after it: refused in a few words, or an image of 1 to `MOST` bytes. It never waits.
pub fn upload(bytes: &[u8]) {
    let line = bytes.iter().position(|&b| b == b'\n').unwrap_or(bytes.len());
    let kind = String::from_utf8_lossy(&bytes[..line]);
    let body = bytes.get(line + 1..).unwrap_or_default();
    let way = match Way::of(Some(&kind)) {
        Ok(way) => way,
        Err(refusal) => return check(&refusal),
    };
    // The service reads no more.
    let body = Bytes::copy_from_slice(&body[..body.len().min(way.most_bytes(MOST))]);
    let Some(image) = way.image(body.clone(), MOST).now_or_never() else { panic!("it waits for more of a whole body") };
    match image {
        Err(refusal) => check(&refusal),
        Ok(image) => {
            assert!((1..=MOST).contains(&image.len()));
            match way {
                Way::Bytes | Way::Curl => assert_eq!(image, body),
                Way::Form { .. } => assert!(body.windows(image.len()).any(|part| part == image), "no part of the body"),
                Way::Json => assert!(image.len() <= body.len() * 3 / 4),
            }
        }
    }
}

fn check(refusal: &Refusal) {
    match refusal {
        Refusal::Empty | Refusal::Misplaced(_) | Refusal::FormTooLarge { .. } => {}
        Refusal::TooLarge { most } => assert_eq!(*most, MOST),
        Refusal::Type(what) | Refusal::Form(what) | Refusal::Json(what) => {
            assert!((1..=250).contains(&what.chars().count()), "{what}");
        }
    }
}
