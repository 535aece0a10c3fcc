//! Values on their way out: to the host, to text, to files, to quantised tensors.

use candle_core::quantized::{GgmlDType, QMatMul, QTensor};
use candle_core::{Error, Module, Result, Tensor};

use super::case::{Case, N, effect, f32, matrix, value};

/// Runs `f` with the name of a new file.
fn in_a_file(f: impl FnOnce(&std::path::Path) -> Result<()>) -> Result<()> {
    let folder = tempfile::tempdir().map_err(Error::wrap)?;
    f(&folder.path().join("file"))
}

/// The text of a tensor, which holds values: its first is a quarter.
fn shown(t: &Tensor) -> Result<()> {
    let text = format!("{t}");
    if text.contains("0.2500") { Ok(()) } else { candle_core::bail!("no values in {text}") }
}

fn quantised(t: &Tensor) -> Result<QMatMul> {
    QMatMul::from_qtensor(QTensor::quantize(t, GgmlDType::Q8_0)?)
}

pub fn cases() -> Vec<Case> {
    let mut all = vec![
        effect!("to_vec1", [f32(&[N * N])], |t| t[0].to_vec1::<f32>()),
        effect!("to_vec2", [matrix()], |t| t[0].to_vec2::<f32>()),
        effect!("to_vec2 of a strided view", [matrix()], |t| t[0].t()?.to_vec2::<f32>()),
        effect!("to_vec3", [f32(&[4, 8, 16])], |t| t[0].to_vec3::<f32>()),
        effect!("to_vec0", [f32(&[])], |t| t[0].to_vec0::<f32>()),
        effect!("to_scalar", [f32(&[])], |t| t[0].to_scalar::<f32>()),
        effect!("f32::try_from", [f32(&[])], |t| f32::try_from(&t[0])),
        effect!("Vec::try_from", [f32(&[N])], |t| Vec::<f32>::try_from(&t[0])),
        effect!("write_bytes", [matrix()], |t| t[0].write_bytes(&mut Vec::new())),
        effect!("Display", [matrix()], |t| shown(&t[0])),
        effect!("Display of few values", [f32(&[3, 3])], |t| shown(&t[0])),
        effect!("storage_and_layout", [matrix()], |t| {
            let (storage, _) = t[0].storage_and_layout();
            match &*storage {
                candle_core::Storage::Cpu(cpu) => cpu.as_slice::<f32>().map(<[f32]>::to_vec),
                _ => candle_core::bail!("not on the CPU"),
            }
        }),
    ];
    if !cfg!(miri) {
        all.extend([
            effect!("write_npy", [matrix()], |t| in_a_file(|file| t[0].write_npy(file))),
            effect!("write_npz", [matrix()], |t| in_a_file(|file| Tensor::write_npz(&[("x", &t[0])], file))),
            effect!("save_safetensors", [matrix()], |t| in_a_file(|file| t[0].save_safetensors("x", file))),
            effect!("safetensors::save", [matrix()], |t| in_a_file(|file| {
                candle_core::safetensors::save(&[("x".to_owned(), t[0].clone())].into(), file)
            })),
            effect!("QTensor::quantize", [matrix()], |t| QTensor::quantize(&t[0], GgmlDType::Q4K)),
            value!("QMatMul::forward", [matrix(), matrix()], |t| quantised(&t[0])?.forward(&t[1])),
        ]);
    }
    all
}
