//! The classes of the data set and its annotated objects.

/// What can be detected. Some are near each other on purpose: ring and disc, cross and star, small disc and small square.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// A disc, or nearly one.
    Disc,
    /// A disc with a hole.
    Ring,
    /// A square, or nearly one.
    Square,
    /// A triangle.
    Triangle,
    /// A star of four, five or six points.
    Star,
    /// Two bars across each other.
    Cross,
}

impl Class {
    /// All classes, in the order of their ids.
    pub const ALL: [Self; 6] = [Self::Disc, Self::Ring, Self::Square, Self::Triangle, Self::Star, Self::Cross];

    /// The category's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Disc => "disc",
            Self::Ring => "ring",
            Self::Square => "square",
            Self::Triangle => "triangle",
            Self::Star => "star",
            Self::Cross => "cross",
        }
    }

    /// The category's id, 1 to 6.
    pub fn id(self) -> u64 {
        self as u64 + 1
    }
}

/// An annotated object.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Object {
    /// Its class.
    pub class: Class,
    /// Tight box of its visible part: left, top, width, height in pixels.
    pub bbox: [f64; 4],
    /// Share of the whole object that is visible; what lies outside the image counts as hidden.
    pub visible: f32,
}

impl Object {
    /// COCO's `area`: the box's width times height.
    pub fn area(&self) -> f64 {
        self.bbox[2] * self.bbox[3]
    }
}
