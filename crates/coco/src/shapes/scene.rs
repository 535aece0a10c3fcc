//! Scenes: what stands where, what hides what, and which objects are worth an annotation.

use super::camera;
use super::config::{ShapesConfig, Split};
use super::draw::Draw;
use super::figure::{Figure, Outline, Pose, Stamp, blob};
use super::knobs;
use super::object::{Class, Object};
use super::paint::{Canvas, Paint, class_color, contrasting};
use crate::rgb8::Rgb8;

/// A scene under construction.
struct Scene {
    canvas: Canvas,
    /// Bottom to top.
    placed: Vec<Placed>,
}

/// An object that has found its place.
struct Placed {
    class: Class,
    center: [f32; 2],
    /// Half its nominal diameter.
    radius: f32,
    /// What is visible of it so far.
    visible: Stamp,
}

/// Image `index` of a split and its annotated objects, bottom to top. Any index can be asked for; the data set on disk holds the
/// first `config.images(split)`.
///
/// ```
/// use docent_coco::shapes::{ShapesConfig, Split, render};
/// let (image, objects) = render(&ShapesConfig::default(), Split::Train, 0);
/// assert_eq!(image.data.len(), 3 * image.width * image.height);
/// assert!(objects.iter().all(|o| o.bbox[0] + o.bbox[2] <= image.width as f64));
/// ```
pub fn render(config: &ShapesConfig, split: Split, index: usize) -> (Rgb8, Vec<Object>) {
    render_scene(config.seed, &split.purpose(), index as u64)
}

/// Draws image `index` of the split whose purpose is given.
fn render_scene(seed: u64, purpose: &str, index: u64) -> (Rgb8, Vec<Object>) {
    let mut draw = Draw::new(seed, purpose, 0, index);
    let (width, height) = sides(&mut draw);
    let mut scene = Scene { canvas: Canvas::background(&mut draw, width, height), placed: Vec::new() };
    let mut wanted = wanted(&mut draw, width.min(height) as f32);
    if draw.chance(knobs::BY_SIZE_CHANCE) {
        wanted.sort_by(|a, b| b.total_cmp(a));
    }
    let clutter = draw.whole(knobs::CLUTTER);
    let mut late = Vec::new();
    for _ in 0..clutter {
        let distractor = draw.chance(knobs::DISTRACTOR_CHANCE);
        let over = if distractor { knobs::DISTRACTOR_OVER_CHANCE } else { knobs::STROKE_OVER_CHANCE };
        if draw.chance(over) {
            late.push((draw.whole((0, wanted.len())), distractor));
        } else {
            scene.clutter(&mut draw, distractor);
        }
    }
    for (place, &diameter) in wanted.iter().enumerate() {
        late.iter().filter(|(at, _)| *at == place).for_each(|&(_, kind)| scene.clutter(&mut draw, kind));
        scene.object(&mut draw, diameter);
    }
    late.iter().filter(|(at, _)| *at == wanted.len()).for_each(|&(_, kind)| scene.clutter(&mut draw, kind));
    let objects = scene.placed.iter().filter_map(|placed| annotate(placed.class, &placed.visible)).collect();
    (camera::expose(&mut Draw::new(seed, purpose, 1, index), &scene.canvas), objects)
}

/// Width and height of an image.
fn sides(draw: &mut Draw) -> (usize, usize) {
    let step = knobs::SIDE_STEP;
    let longest = draw.whole((knobs::LONGEST_SIDE.0 / step, knobs::LONGEST_SIDE.1 / step));
    let least = (longest as f32 * knobs::MIN_ASPECT).floor() as usize + 1;
    let other = draw.whole((least.min(longest), longest));
    let (a, b) = (longest * step, other * step);
    if draw.chance(0.5) { (a, b) } else { (b, a) }
}

/// Diameters of the objects a scene asks for, bottom to top.
fn wanted(draw: &mut Draw, shorter: f32) -> Vec<f32> {
    let kind = draw.unit();
    let few = draw.whole(knobs::OBJECTS);
    let many = draw.whole(knobs::FLOCK_OBJECTS);
    let flock = knobs::EMPTY_CHANCE + knobs::FLOCK_CHANCE;
    if kind < knobs::EMPTY_CHANCE {
        Vec::new()
    } else if kind < flock {
        (0..many).map(|_| draw.log_span(knobs::FLOCK_DIAMETER)).collect()
    } else if kind < flock + knobs::CLOSE_UP_CHANCE {
        let big = draw.span(knobs::CLOSE_UP_DIAMETER).min(knobs::CLOSE_UP_SHARE * shorter);
        let rest = (1..few).map(|_| draw.log_span(knobs::CLOSE_UP_REST));
        std::iter::once(big).chain(rest).collect()
    } else {
        (0..few).map(|_| draw.log_span(knobs::DIAMETER)).collect()
    }
}

/// The annotation of an object of which `stamp` is visible, or none where too little is.
fn annotate(class: Class, stamp: &Stamp) -> Option<Object> {
    let [left, top, right, bottom] = stamp.tight()?;
    let (width, height) = (right - left, bottom - top);
    let visible = stamp.share();
    let shown = visible >= knobs::MIN_VISIBLE && width >= knobs::MIN_SIDE && height >= knobs::MIN_SIDE;
    shown.then_some(Object { class, bbox: [left, top, width, height], visible })
}

impl Class {
    /// Each class as likely as any other.
    fn any(draw: &mut Draw) -> Self {
        Self::ALL[draw.whole((0, Self::ALL.len() - 1))]
    }
}

impl Scene {
    /// Puts one object on top, in a random class, pose and paint; nothing if no place is found.
    fn object(&mut self, draw: &mut Draw, diameter: f32) {
        let class = Class::any(draw);
        let outline = match class {
            Class::Disc => Outline::Disc,
            Class::Ring => Outline::Ring { hole: draw.span(knobs::RING_HOLE) },
            Class::Square => Outline::Square,
            Class::Triangle => Outline::Triangle,
            Class::Star => Outline::star(draw.whole((4, 6)), draw.span(knobs::STAR_WAIST)),
            Class::Cross => Outline::Cross { arm: draw.span(knobs::CROSS_ARM) },
        };
        let stretch = draw.span(knobs::STRETCH).sqrt();
        let radius = 0.5 * diameter;
        let radii = [radius * stretch, radius / stretch];
        for _ in 0..knobs::PLACE_TRIES {
            let mut pose = self.pose(draw, radii, knobs::MARGIN * diameter);
            if !self.placed.is_empty() && draw.chance(knobs::NEAR_CHANCE) {
                let near = &self.placed[draw.whole((0, self.placed.len() - 1))];
                let distance = draw.span(knobs::NEAR_DISTANCE) * (near.radius + radius);
                let way = draw.direction();
                pose.center = [0, 1].map(|k| near.center[k] + distance * way[k]);
            }
            let figure = Figure::Solid { pose, outline: outline.clone(), half: false };
            let stamp = figure.stamp(self.canvas.width, self.canvas.height);
            let fits = stamp.share() >= knobs::INSIDE
                && self.placed.iter().all(|under| under.visible.hidden_by(&stamp).share() >= knobs::KEEP_VISIBLE);
            if fits {
                let wears = draw.chance(knobs::COLOR_CUE).then_some(class);
                self.paint(draw, &stamp, wears, knobs::CONTRAST, diameter);
                self.placed.push(Placed { class, center: pose.center, radius, visible: stamp });
                return;
            }
        }
    }

    /// Any direction, and a centre anywhere in the image that keeps `margin` pixels from the edges, or half the side.
    fn pose(&self, draw: &mut Draw, radii: [f32; 2], margin: f32) -> Pose {
        let center = [self.canvas.width, self.canvas.height].map(|side| {
            let margin = margin.min(0.5 * side as f32);
            draw.span((margin, side as f32 - margin))
        });
        Pose { center, axis: draw.direction(), radii }
    }

    /// Lays a stamp in a colour that stands off from what it covers (the class's, if it wears one and that does), and takes the
    /// stamp from all that lies beneath.
    fn paint(&mut self, draw: &mut Draw, stamp: &Stamp, wears: Option<Class>, contrast: (f32, f32), scale: f32) {
        let under = self.canvas.mean_under(stamp);
        let (color, distance) = wears
            .and_then(|class| class_color(draw, class, under, contrast.0))
            .unwrap_or_else(|| contrasting(draw, under, contrast));
        let amplitude = distance * draw.span(knobs::FILL_TEXTURE);
        let paint = Paint::textured(draw, color, amplitude, scale);
        self.canvas.lay(stamp, &paint);
        for under in &mut self.placed {
            under.visible = under.visible.hidden_by(stamp);
        }
    }

    /// Puts a piece of clutter on top: a shape of no class, or strokes.
    fn clutter(&mut self, draw: &mut Draw, distractor: bool) {
        let (figure, scale) = if distractor { self.distractor(draw) } else { (self.strokes(draw), 20.0) };
        let stamp = figure.stamp(self.canvas.width, self.canvas.height);
        let wears = (distractor && draw.chance(knobs::DISTRACTOR_COLOR_CUE)).then(|| Class::any(draw));
        self.paint(draw, &stamp, wears, knobs::CLUTTER_CONTRAST, scale);
    }

    /// A closed shape that is no class: half of one, or too long, or bent, or grown together.
    fn distractor(&self, draw: &mut Draw) -> (Figure, f32) {
        let diameter = draw.log_span(knobs::DISTRACTOR_DIAMETER);
        let radius = 0.5 * diameter;
        let long = draw.span(knobs::ELONGATION).sqrt();
        let (outline, radii, half) = match draw.whole((0, 8)) {
            0 => (Outline::Disc, [radius; 2], true),
            1 => (Outline::Ring { hole: draw.span(knobs::RING_HOLE) }, [radius; 2], true),
            2 => (Outline::star(5, draw.span(knobs::STAR_WAIST)), [radius; 2], true),
            3 => (Outline::Cross { arm: draw.span(knobs::CROSS_ARM) }, [radius; 2], true),
            4 => (Outline::Disc, [radius * long, radius / long], false),
            5 | 6 => (Outline::Square, [radius * long, radius / long], false),
            7 => (Outline::Angle { arm: draw.span(knobs::CROSS_ARM) }, [radius; 2], false),
            _ => (blob(draw), [radius; 2], false),
        };
        (Figure::Solid { pose: self.pose(draw, radii, 0.0), outline, half }, diameter)
    }

    /// A line across the image, a scribble, or a line of what could be writing.
    fn strokes(&self, draw: &mut Draw) -> Figure {
        let (width, height) = (self.canvas.width as f32, self.canvas.height as f32);
        let start = [draw.unit() * width, draw.unit() * height];
        let axis = draw.direction();
        let radius = draw.span(knobs::STROKE_RADIUS);
        let step = |from: [f32; 2], way: [f32; 2], by: f32| [from[0] + by * way[0], from[1] + by * way[1]];
        match draw.whole((0, 2)) {
            0 => {
                let (back, forth) = (draw.span((10.0, 80.0)), draw.span((10.0, 80.0)));
                Figure::Strokes { lines: vec![[step(start, axis, -back), step(start, axis, forth)]], radius }
            }
            1 => {
                let mut lines = Vec::new();
                let (mut at, mut way) = (start, axis);
                for _ in 0..draw.whole((3, 7)) {
                    let next = step(at, way, draw.span((4.0, 18.0)));
                    lines.push([at, next]);
                    at = next;
                    // A turn of up to about 60 degrees: add a sideways share and bring it back to length one.
                    let side = draw.span((-1.7, 1.7));
                    let turned = [way[0] - side * way[1], way[1] + side * way[0]];
                    let length = (turned[0] * turned[0] + turned[1] * turned[1]).sqrt();
                    way = [turned[0] / length, turned[1] / length];
                }
                Figure::Strokes { lines, radius }
            }
            _ => {
                let em = draw.span((4.0, 9.0));
                let down = [-axis[1], axis[0]];
                let mut lines = Vec::new();
                for letter in 0..draw.whole((3, 9)) {
                    let corner = step(start, axis, letter as f32 * em);
                    for _ in 0..draw.whole((2, 3)) {
                        let mut point =
                            || step(step(corner, axis, draw.span((0.0, 0.7)) * em), down, draw.span((0.0, 1.2)) * em);
                        lines.push([point(), point()]);
                    }
                }
                Figure::Strokes { lines, radius: radius.min(0.12 * em) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disc(center: [f32; 2], radius: f32) -> Stamp {
        let pose = Pose { center, axis: [1.0, 0.0], radii: [radius; 2] };
        Figure::Solid { pose, outline: Outline::Disc, half: false }.stamp(100, 100)
    }

    #[test]
    fn an_object_loses_its_annotation_when_it_is_hidden() {
        let under = disc([50.0, 50.0], 20.0);
        let whole = annotate(Class::Disc, &under).unwrap();
        assert_eq!((whole.class, whole.visible), (Class::Disc, 1.0));
        // A disc of the same size, moved by d, hides less the larger d is; the box follows what is left.
        let shown = |d: f32| annotate(Class::Disc, &under.hidden_by(&disc([50.0 + d, 50.0], 20.0)));
        assert_eq!(shown(0.0), None);
        assert_eq!(shown(4.0), None);
        let half = shown(20.0).unwrap();
        assert!((0.5..0.7).contains(&half.visible), "{}", half.visible);
        assert!(half.bbox[2] < whole.bbox[2] - 5.0);
        assert_eq!(shown(41.0).unwrap().bbox, whole.bbox);
    }

    #[test]
    fn what_is_too_small_or_mostly_outside_has_none() {
        assert_eq!(annotate(Class::Disc, &disc([50.0, 50.0], 1.5)), None);
        assert_eq!(annotate(Class::Disc, &disc([-12.0, 50.0], 20.0)), None);
        assert!(annotate(Class::Disc, &disc([2.0, 50.0], 20.0)).is_some());
    }

    #[test]
    fn sides_keep_their_bounds_and_both_orientations_occur() {
        let mut seen = [false; 3];
        for index in 0..400 {
            let (w, h) = sides(&mut Draw::new(0, "test", 0, index));
            let (long, short) = (w.max(h), w.min(h));
            assert!((112..=160).contains(&long) && w % 8 == 0 && h % 8 == 0);
            assert!(short as f32 >= 0.7 * long as f32);
            seen[usize::from(w > h) + 2 * usize::from(w == h)] = true;
        }
        assert_eq!(seen, [true; 3]);
    }
}
