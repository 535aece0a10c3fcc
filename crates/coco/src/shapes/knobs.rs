//! The difficulty of the data set, in one place: every count, size, contrast and chance the generator draws from.
//!
//! Lengths are pixels, colours and noise are on the scale 0..255, chances are in 0..1, and a pair is a span both ends of which
//! can be drawn. **A change of any number here is a new [`VERSION`](super::VERSION).**

// ----- The image -----

/// Longest side of an image; drawn in whole steps of [`SIDE_STEP`]. The upper end is the most the data set promises (160).
pub(super) const LONGEST_SIDE: (usize, usize) = (112, 160);
/// Step of both sides.
pub(super) const SIDE_STEP: usize = 8;
/// The shorter side is at least this share of the longer one.
pub(super) const MIN_ASPECT: f32 = 0.7;

// ----- Objects -----

/// Objects a usual scene asks for. More makes more occlusion; the last ones find no place in a full scene.
pub(super) const OBJECTS: (usize, usize) = (2, 7);
/// Nominal diameter of an object, log-uniform: as many between 20 and 40 pixels as between 40 and 80. With [`CONTRAST`] and
/// [`COLOR_CUE`] the strongest knob: an object of 10 pixels is two or three cells of a detector's first map (stride 4).
pub(super) const DIAMETER: (f32, f32) = (20.0, 84.0);
/// Chance of a scene with nothing but background and clutter.
pub(super) const EMPTY_CHANCE: f32 = 0.04;
/// Chance of a flock: many small objects instead of a few of any size.
pub(super) const FLOCK_CHANCE: f32 = 0.06;
/// Objects a flock asks for.
pub(super) const FLOCK_OBJECTS: (usize, usize) = (6, 10);
/// Diameter of an object of a flock.
pub(super) const FLOCK_DIAMETER: (f32, f32) = (14.0, 26.0);
/// Chance of a close-up: one object nearly as big as the image, so that COCO's `large` (96² and more) has objects at all.
pub(super) const CLOSE_UP_CHANCE: f32 = 0.14;
/// Diameter of a close-up's big object; no more than [`CLOSE_UP_SHARE`] of the shorter side.
pub(super) const CLOSE_UP_DIAMETER: (f32, f32) = (100.0, 130.0);
/// Largest share of the shorter side that a close-up's object takes.
pub(super) const CLOSE_UP_SHARE: f32 = 0.95;
/// Diameter of the smaller objects of a close-up.
pub(super) const CLOSE_UP_REST: (f32, f32) = (16.0, 44.0);
/// Ratio of an object's longer radius to its shorter. Clutter starts where this ends ([`ELONGATION`]).
pub(super) const STRETCH: (f32, f32) = (1.0, 1.2);

// ----- What tells the classes apart -----

/// Radius of a ring's hole; at the lower end, small and blurred, a ring is nearly a disc.
pub(super) const RING_HOLE: (f32, f32) = (0.42, 0.7);
/// Half the width of a cross's bars; at the upper end a cross is nearly a square.
pub(super) const CROSS_ARM: (f32, f32) = (0.2, 0.32);
/// Inner radius of a star; a star of four points and a small inner radius is nearly a cross.
pub(super) const STAR_WAIST: (f32, f32) = (0.38, 0.5);

// ----- Occlusion -----

/// Tries to find a place for one object before the scene goes without it.
pub(super) const PLACE_TRIES: usize = 8;
/// An object may be put over earlier ones as long as this share of each stays visible.
pub(super) const KEEP_VISIBLE: f32 = 0.45;
/// Chance that a scene is stacked by size, the largest at the bottom; else the order is left to chance, and large objects that
/// would hide the rest find no place more often.
pub(super) const BY_SIZE_CHANCE: f32 = 0.6;
/// An object's centre keeps this share of its diameter from the image's edges.
pub(super) const MARGIN: f32 = 0.25;
/// Chance that an object is put near an earlier one, so that they are likely to overlap, and not anywhere.
pub(super) const NEAR_CHANCE: f32 = 0.2;
/// Distance of two such centres, as a share of the sum of the nominal radii.
pub(super) const NEAR_DISTANCE: (f32, f32) = (0.4, 1.0);
/// At least this share of an object lies inside the image when it is placed.
pub(super) const INSIDE: f32 = 0.5;
/// Under this visible share (of the whole shape, also of what lies outside the image) an object has no annotation.
pub(super) const MIN_VISIBLE: f32 = 0.25;
/// Under this side of its visible box, in pixels, an object has no annotation.
pub(super) const MIN_SIDE: f64 = 4.0;
/// A pixel belongs to an object when at least this many of its 16 samples show it.
pub(super) const MIN_SAMPLES: u32 = 4;

// ----- Colour -----

/// Distance in RGB between an object's colour and the mean of what it covers. The lower end makes camouflaged objects.
pub(super) const CONTRAST: (f32, f32) = (80.0, 180.0);
/// The same for clutter.
pub(super) const CLUTTER_CONTRAST: (f32, f32) = (30.0, 110.0);
/// Chance that an object wears its class's colour ([`COLORS`]) where that stands off from what it covers; else its colour says
/// nothing. Colour is evidence and no proof, as in photographs. It decides how soon a detector that starts from random tells the
/// classes apart: at 0 only outlines do, and a short training learns where objects are but not what they are.
pub(super) const COLOR_CUE: f32 = 0.75;
/// The same for distractors, which wear the colour of any class.
pub(super) const DISTRACTOR_COLOR_CUE: f32 = 0.2;
/// Colour of each class, in the order of their ids.
pub(super) const COLORS: [[f32; 3]; 6] = [
    [205.0, 60.0, 55.0],
    [225.0, 185.0, 60.0],
    [65.0, 90.0, 205.0],
    [70.0, 175.0, 80.0],
    [190.0, 80.0, 190.0],
    [70.0, 190.0, 200.0],
];
/// Largest difference of each channel from the class's colour.
pub(super) const COLOR_SPREAD: f32 = 32.0;
/// Amplitude of an object's own texture, as a share of its contrast.
pub(super) const FILL_TEXTURE: (f32, f32) = (0.0, 0.25);
/// Amplitude of the background's texture (half the distance of its two colours).
pub(super) const BACKGROUND_TEXTURE: (f32, f32) = (4.0, 20.0);
/// Amplitude of a second, finer texture laid over the first.
pub(super) const BACKGROUND_GRAIN: (f32, f32) = (0.0, 8.0);

// ----- Clutter -----

/// Pieces of clutter a scene gets.
pub(super) const CLUTTER: (usize, usize) = (1, 4);
/// Diameter of a distractor (half shape, bar, ellipse, angle, blob), log-uniform.
pub(super) const DISTRACTOR_DIAMETER: (f32, f32) = (10.0, 60.0);
/// Length to width of distracting bars and ellipses: too long for a square or a disc.
pub(super) const ELONGATION: (f32, f32) = (2.0, 4.5);
/// Share of clutter that is a distractor; the rest are lines, scribbles and lines of writing.
pub(super) const DISTRACTOR_CHANCE: f32 = 0.35;
/// Chance that a line or scribble lies over the objects and not under them.
pub(super) const STROKE_OVER_CHANCE: f32 = 0.25;
/// Chance that a distractor lies between or over the objects and not under all of them.
pub(super) const DISTRACTOR_OVER_CHANCE: f32 = 0.3;
/// Half the width of lines and scribbles.
pub(super) const STROKE_RADIUS: (f32, f32) = (0.4, 1.6);

// ----- Camera -----

/// Brightness at one edge against the other, as a share.
pub(super) const SHADING: (f32, f32) = (0.0, 0.35);
/// Gain around mid-grey.
pub(super) const GAIN: (f32, f32) = (0.8, 1.1);
/// Gain of each colour channel (the light's colour).
pub(super) const CAST: (f32, f32) = (0.85, 1.15);
/// Added brightness.
pub(super) const OFFSET: (f32, f32) = (-22.0, 22.0);
/// Chance of a blurred image.
pub(super) const BLUR_CHANCE: f32 = 0.35;
/// Blur passes with the weights 1 2 1: each adds 1/2 to the variance of the blur, in squared pixels.
pub(super) const BLUR_PASSES: (usize, usize) = (1, 2);
/// Deviation of the noise of a pixel's channel.
pub(super) const NOISE: (f32, f32) = (1.0, 6.0);
