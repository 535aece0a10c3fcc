//! Annotations as COCO JSON.

use serde::Serialize;

use crate::types::{Annotation, Category, Image};

#[derive(Serialize)]
struct FileOut<'a> {
    images: &'a [Image],
    annotations: &'a [Annotation],
    categories: &'a [Category],
}

/// The text of a COCO file with these lists and nothing else. The same data gives the same bytes.
pub(crate) fn coco_text(images: &[Image], annotations: &[Annotation], categories: &[Category]) -> String {
    // Maps with string keys and plain numbers: serialisation has nothing to fail on (a number that is not finite becomes null, and
    // does not load again).
    serde_json::to_string(&FileOut { images, annotations, categories }).unwrap_or_default()
}
