//! First values of a parameter, drawn from (seed, name) alone.

use candle_core::Shape;
use candle_nn::Init;
use candle_nn::init::NormalOrUniform;
use docent_coco::rng;
use rayon::prelude::*;

/// Numbers drawn from one generator: a bound on work a task, and part of the definition of the initial values.
const CHUNK: usize = 1 << 16;

/// Draws a parameter's first values.
///
/// The generator is keyed by (seed, "init/" + name, chunk), so a value depends neither on the order in which a model asks for its
/// parameters nor on the number of threads. Kaiming's formulas are PyTorch's (`torch.nn.init`): deviation gain / sqrt(fan), and for
/// the uniform form the bound sqrt(3) times that. Draws are made in f64 and rounded once.
pub(crate) fn draw(init: Init, shape: &Shape, seed: u64, name: &str) -> Vec<f32> {
    match init {
        Init::Const(value) => vec![value as f32; shape.elem_count()],
        Init::Randn { mean, stdev } => normal(mean, stdev, shape, seed, name),
        Init::Uniform { lo, up } => uniform(lo, up, shape, seed, name),
        Init::Kaiming { dist, fan, non_linearity } => {
            // A fan of 0 belongs to an empty tensor: no value is drawn, and the division must not give NaN.
            let std = non_linearity.gain() / (fan.for_shape(shape).max(1) as f64).sqrt();
            match dist {
                NormalOrUniform::Normal => normal(0.0, std, shape, seed, name),
                NormalOrUniform::Uniform => {
                    let bound = 3f64.sqrt() * std;
                    uniform(-bound, bound, shape, seed, name)
                }
            }
        }
    }
}

fn normal(mean: f64, std: f64, shape: &Shape, seed: u64, name: &str) -> Vec<f32> {
    fill(shape, seed, name, |r| (mean + std * rng::normal(r)) as f32)
}

fn uniform(lo: f64, up: f64, shape: &Shape, seed: u64, name: &str) -> Vec<f32> {
    fill(shape, seed, name, |r| (lo + (up - lo) * rng::unit_f64(r)) as f32)
}

fn fill(shape: &Shape, seed: u64, name: &str, value: impl Fn(&mut rng::ChaCha8Rng) -> f32 + Sync) -> Vec<f32> {
    let purpose = format!("init/{name}");
    let mut values = vec![0f32; shape.elem_count()];
    values.par_chunks_mut(CHUNK).enumerate().for_each(|(i, chunk)| {
        let mut generator = rng::keyed(seed, &purpose, 0, i as u64);
        chunk.iter_mut().for_each(|v| *v = value(&mut generator));
    });
    values
}

#[cfg(test)]
mod tests {
    use candle_nn::init::{FanInOut, NonLinearity};

    use super::*;

    fn moments(values: &[f32]) -> (f64, f64) {
        let n = values.len() as f64;
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
        (mean, (values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n).sqrt())
    }

    fn kaiming(dist: NormalOrUniform, fan: FanInOut, non_linearity: NonLinearity) -> Init {
        Init::Kaiming { dist, fan, non_linearity }
    }

    #[test]
    fn kaiming_normal_has_the_deviation_of_its_fan() {
        let shape = Shape::from((128, 64, 3, 3));
        for (fan, n) in [(FanInOut::FanOut, 128.0 * 9.0), (FanInOut::FanIn, 64.0 * 9.0)] {
            let values = draw(kaiming(NormalOrUniform::Normal, fan, NonLinearity::ReLU), &shape, 0, "w");
            let (mean, std) = moments(&values);
            let want = (2.0f64 / n).sqrt();
            // 73,728 values: the deviation's own deviation is 0.26%, the mean's 0.37% of it; five of each are allowed.
            assert!((std / want - 1.0).abs() < 0.013, "{std} instead of {want}");
            assert!(mean.abs() < 0.0185 * want, "mean {mean}");
            // A normal draw reaches beyond three deviations, a uniform one never beyond 1.74.
            let beyond = values.iter().filter(|v| f64::from(v.abs()) > 3.0 * want).count() as f64 / values.len() as f64;
            assert!((beyond - 0.0027).abs() < 0.001, "{beyond}");
        }
    }

    #[test]
    fn uniform_draws_fill_their_bounds() {
        let shape = Shape::from((256, 100));
        let values = draw(kaiming(NormalOrUniform::Uniform, FanInOut::FanIn, NonLinearity::Linear), &shape, 0, "w");
        let bound = (3.0f64 / 100.0).sqrt();
        let (low, high) = values.iter().fold((f32::MAX, f32::MIN), |(l, h), &v| (l.min(v), h.max(v)));
        assert!(f64::from(high) <= bound && f64::from(high) > 0.999 * bound);
        assert!(f64::from(low) >= -bound && f64::from(low) < -0.999 * bound);
        let values = draw(Init::Uniform { lo: 2.0, up: 5.0 }, &shape, 0, "w");
        let (mean, std) = moments(&values);
        assert!((mean - 3.5).abs() < 0.03 && (std - 3.0 / 12f64.sqrt()).abs() < 0.02);
        assert!(values.iter().all(|v| (2.0..=5.0).contains(v)));
    }

    #[test]
    fn other_hints_and_empty_shapes() {
        let (mean, std) = moments(&draw(Init::Randn { mean: 1.0, stdev: 0.01 }, &Shape::from(50_000), 7, "a"));
        assert!((mean - 1.0).abs() < 3e-4 && (std - 0.01).abs() < 2e-4);
        assert_eq!(draw(Init::Const(0.5), &Shape::from(3), 0, "a"), [0.5; 3]);
        assert_eq!(draw(Init::Const(0.0), &Shape::from(()), 0, "a"), [0.0]);
        let empty = kaiming(NormalOrUniform::Normal, FanInOut::FanIn, NonLinearity::ReLU);
        assert!(draw(empty, &Shape::from((4, 0)), 0, "a").is_empty());
    }

    #[test]
    fn seed_and_name_decide_and_nothing_else() {
        let init = Init::Randn { mean: 0.0, stdev: 1.0 };
        let shape = Shape::from(CHUNK + 5);
        let first = draw(init, &shape, 0, "a");
        assert_eq!(first, draw(init, &shape, 0, "a"));
        assert_ne!(first, draw(init, &shape, 1, "a"));
        assert_ne!(first, draw(init, &shape, 0, "b"));
        assert_ne!(first[..5], first[CHUNK..], "each chunk has its own generator");
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        assert_eq!(first, pool.install(|| draw(init, &shape, 0, "a")));
    }
}
