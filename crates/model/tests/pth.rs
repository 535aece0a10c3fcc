//! PyTorch's own files: both forms as torch writes them, damage, and pickles that ask for more than tensors.
//!
//! `tests/data/*.pth` come from `xtask/golden/weights.py --fixtures`; hostile files are put together here.
#![cfg(feature = "pth")]
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use candle_core::DType;
use docent_model::{FileFormat, WeightFile, read_weights};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn values(file: &WeightFile, name: &str) -> Vec<f32> {
    file.tensors[name].flatten_all().unwrap().to_vec1().unwrap()
}

/// The error of reading `bytes`, which must name the file.
fn refused(bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.pth");
    std::fs::write(&path, bytes).unwrap();
    let message = read_weights(&path).unwrap_err().to_string();
    assert!(message.contains("w.pth"), "{message}");
    message
}

#[test]
fn both_forms_hold_the_same_tensors() {
    for (name, format) in [("state.zip.pth", FileFormat::PthZip), ("state.legacy.pth", FileFormat::PthLegacy)] {
        let path = fixture(name);
        assert!(std::fs::metadata(&path).unwrap().len() < 20_000);
        let file = read_weights(&path).unwrap();
        assert_eq!((file.format, file.tensors.len()), (format, 16));
        assert_eq!(docent_model::sha256_hex(std::fs::read(&path).unwrap()), file.sha256);
        // -1, -0.5, .. in each float type; whole numbers from -2, bytes from 0.
        for (name, dtype) in [("f32", DType::F32), ("f64", DType::F64), ("f16", DType::F16), ("bf16", DType::BF16)] {
            let name = format!("type.{name}");
            assert_eq!((values(&file, &name), file.stored[&name]), (vec![-1.0, -0.5, 0.0, 0.5, 1.0, 1.5], dtype));
            assert_eq!(file.tensors[&name].dims(), [2, 3]);
        }
        for (name, dtype) in [("i64", DType::I64), ("i32", DType::I32), ("i16", DType::I16)] {
            let name = format!("type.{name}");
            assert_eq!((values(&file, &name), file.stored[&name]), (vec![-2.0, -1.0, 0.0, 1.0, 2.0, 3.0], dtype));
        }
        assert_eq!(values(&file, "type.u8"), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(values(&file, "type.bool"), [1.0, 0.0, 0.0, 1.0, 0.0, 0.0]);
        // Views of one storage.
        let whole: Vec<f32> = (0..24).map(|i| i as f32 / 2.0 - 1.0).collect();
        assert_eq!(values(&file, "view.whole"), whole);
        assert_eq!(file.tensors["view.permuted"].dims(), [4, 2, 3]);
        let permuted: Vec<f32> = (0..4).flat_map(|k| (0..6).map(move |ij| ij * 4 + k)).map(|at| whole[at]).collect();
        assert_eq!(values(&file, "view.permuted"), permuted);
        assert_eq!(
            (values(&file, "view.rows"), file.tensors["view.rows"].dims()),
            (whole[5..17].to_vec(), &[3, 4][..])
        );
        assert_eq!(values(&file, "view.stepped"), [whole[1], whole[6], whole[11], whole[16], whole[21]]);
        assert_eq!((values(&file, "scalar"), file.tensors["scalar"].rank()), (vec![42.0], 0));
        assert_eq!(file.tensors["empty"].dims(), [0, 4]);
        assert_eq!(values(&file, "parameter"), [-1.0, -0.5, 0.0]);
    }
}

#[test]
fn what_a_training_script_saves_beside_the_state_dict_is_passed_over() {
    // Written by torch.save, the second with an argparse.Namespace.
    for (name, beside) in [("wrapped.pth", "epoch, lr, done, name, best, milestones, size"), ("namespace.pth", "args")]
    {
        let file = read_weights(&fixture(name)).unwrap();
        assert_eq!(file.tensors.keys().collect::<Vec<_>>(), ["weight"]);
        assert_eq!(values(&file, "weight"), [-1.0, -0.5, 0.0, 0.5]);
        assert_eq!(file.notes, [format!("passed over, and nothing in it was run: {beside}")]);
    }
    let file = read_weights(&fixture("state.legacy.pth")).unwrap();
    assert!(file.notes.is_empty(), "{:?}", file.notes);
}

#[test]
fn newer_protocols_are_read() {
    let file = read_weights(&fixture("protocol4.pth")).unwrap();
    assert_eq!(values(&file, "weight"), [-1.0, -0.5, 0.0, 0.5]);
}

/// The checkpoint of torchvision's training reference, opcode for opcode as torch writes it: `{model, optimizer, lr_scheduler, args,
/// epoch}` with a `Counter`, a `Namespace` and the optimizer's tensors; `more` is put among the arguments, `inside` into the state dict.
fn reference(more: &[u8], inside: &[u8]) -> Vec<u8> {
    let key = |name: &str, value: &[u8]| [text(name), value.to_vec()].concat();
    let model = [&b"ccollections\nOrderedDict\n)R("[..], &text("w"), &tensor(2, 0, &[2], &[1]), inside, b"u"].concat();
    // `_metadata`, as attributes.
    let model = [model, b"}(".to_vec(), text("_metadata"), b"}ub".to_vec()].concat();
    let state = [&b"}K\x00}"[..], &text("momentum_buffer"), &tensor(2, 1, &[1], &[1]), b"ss"].concat();
    let counter = b"ccollections\nCounter\n}K\x10K\x01s\x85R";
    let args = [&b"cargparse\nNamespace\n)\x81}("[..], &text("lr"), b"G\x3f\x94\x7a\xe1\x47\xae\x14\x7b", more, b"ub"]
        .concat();
    let entries = [
        key("model", &model),
        key("optimizer", &[&b"}"[..], &text("state"), &state, b"s"].concat()),
        key("lr_scheduler", &[&b"}"[..], &text("milestones"), counter, b"s"].concat()),
        key("args", &args),
        key("epoch", b"K\x19"),
    ];
    let body = [&b"}("[..], &entries.concat(), b"u."].concat();
    legacy(&body, &storage_of_two())
}

#[test]
fn a_training_references_checkpoint_is_its_state_dict() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model_25.pth");
    std::fs::write(&path, reference(b"", b"")).unwrap();
    let file = read_weights(&path).unwrap();
    assert_eq!(file.tensors.keys().collect::<Vec<_>>(), ["w"]);
    assert_eq!(values(&file, "w"), [0.5, 2.0]);
    assert_eq!(file.notes, ["passed over, and nothing in it was run: optimizer, lr_scheduler, args, epoch"]);
}

/// What Python would run in these lies there as data, outside the state dict; inside it, it is refused.
#[test]
fn a_call_is_data_outside_the_state_dict_and_refused_inside() {
    let folder = tempfile::tempdir().unwrap();
    let (path, mark) = (folder.path().join("w.pth"), folder.path().join("mark"));
    let command = text(&format!("touch {}", mark.display()));
    let system = [&b"cos\nsystem\n"[..], &command, b"\x85R"].concat();
    let eval = [&b"c__builtin__\neval\n"[..], &text("1/0"), b"\x85R"].concat();
    // getattr(os, 'system')(command): a call of what a call has given.
    let twice = [&b"c__builtin__\ngetattr\ncposix\nsystem\n"[..], &text("x"), b"\x86R", &command, b"\x85R"].concat();
    // An object with state, which unpickling would give to __setstate__.
    let built = [&b"cos\nsystem\n)\x81"[..], &command, b"b"].concat();
    for (call, name) in
        [(&system, "os.system"), (&eval, "__builtin__.eval"), (&twice, "__builtin__.getattr"), (&built, "os.system")]
    {
        let entry = [text("x"), call.clone()].concat();
        std::fs::write(&path, reference(&entry, b"")).unwrap();
        assert_eq!(values(&read_weights(&path).unwrap(), "w"), [0.5, 2.0]);
        let message = refused(&reference(b"", &entry));
        for part in [
            &format!("`x` stands among the tensors and is an object of `{name}`"),
            "nothing in it is run",
            "torch.save(model.state_dict()",
        ] {
            assert!(message.contains(part), "{message}");
        }
    }
    assert!(!mark.exists());
}

/// One value may be called upon again and again; that must not cost more than the file has.
#[test]
fn nothing_is_copied_without_end() {
    let name = "x".repeat(10_000);
    // STACK_GLOBAL of two noted texts, ten thousand times.
    let named = [text(&name), b"q\x00".to_vec(), b"h\x00h\x00\x93".repeat(10_000), b".".to_vec()].concat();
    assert!(refused(&legacy(&named, b"\x80\x02].")).contains("than a file of its size"));
    // As many objects of one foreign class are as many small values.
    let objects = [&b"c"[..], name.as_bytes(), b"\nx\nq\x00", &b"h\x00)R0".repeat(10_000), b"N."].concat();
    assert!(refused(&legacy(&objects, b"\x80\x02].")).contains("holds None, no dictionary"));
}

#[test]
fn whole_modules_and_other_programs_pickles_are_told_by_their_names() {
    let module = b"cultralytics.nn.tasks\nDetectionModel\n)\x81}b";
    let message = refused(&legacy(&[&module[..], b"."].concat(), b"\x80\x02]."));
    assert!(message.contains("an object of `ultralytics.nn.tasks.DetectionModel`, no dictionary"), "{message}");
    let wrapped = [&b"}"[..], &text("model"), module, b"s."].concat();
    let message = refused(&legacy(&wrapped, b"\x80\x02]."));
    assert!(
        message.contains("`model` is an object of `ultralytics.nn.tasks.DetectionModel`, no state dict"),
        "{message}"
    );
    // NumPy arrays in a pickle that torch.save did not write: detectron2's model zoo.
    let array = b"cnumpy.core.multiarray\n_reconstruct\n)R";
    let entry = |name: &str| [text(name), array.to_vec()].concat();
    let names = ["proposal_generator.rpn_head.conv.weight", "roi_heads.box_predictor.cls_score.weight"];
    let arrays: Vec<u8> = names.into_iter().flat_map(entry).collect();
    let zoo = [&b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00}("[..], &text("model"), b"}(", &arrays, b"uu."].concat();
    let message = refused(&zoo);
    assert!(message.contains("plain pickle") && message.contains("detectron2's Faster R-CNN"), "{message}");
}

/// A legacy file around the pickle `body` (without its PROTO) and what follows it.
fn legacy(body: &[u8], rest: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.".to_vec();
    bytes.extend(b"\x80\x02}X\x0d\x00\x00\x00little_endian\x88s.");
    bytes.extend(b"\x80\x02");
    bytes.extend(body);
    bytes.extend(rest);
    bytes
}

fn text(s: &str) -> Vec<u8> {
    [b"X", &(s.len() as u32).to_le_bytes()[..], s.as_bytes()].concat()
}

fn int(n: i64) -> Vec<u8> {
    [b"\x8a\x08", &n.to_le_bytes()[..]].concat()
}

/// `_rebuild_tensor_v2(storage "0" of `len` floats, offset, shape, stride, ..)`.
fn tensor(len: i64, offset: i64, shape: &[i64], stride: &[i64]) -> Vec<u8> {
    let sizes = |v: &[i64]| [b"(".to_vec(), v.iter().flat_map(|&n| int(n)).collect(), b"t".to_vec()].concat();
    let storage =
        [&b"("[..], &text("storage"), b"ctorch\nFloatStorage\n", &text("0"), &text("cpu"), &int(len), b"NtQ"].concat();
    [&b"ctorch._utils\n_rebuild_tensor_v2\n("[..], &storage, &int(offset), &sizes(shape), &sizes(stride), b"\x89NtR"]
        .concat()
}

/// The list of storages and the storage "0", two floats.
fn storage_of_two() -> Vec<u8> {
    let keys = [&b"\x80\x02]"[..], &text("0"), b"a."].concat();
    let data = [&2i64.to_le_bytes()[..], &0.5f32.to_le_bytes(), &2.0f32.to_le_bytes()].concat();
    [keys, data].concat()
}

/// Outside the state dict the legacy form may have storages of any type that is known: their bytes are stepped over.
#[test]
fn storages_that_are_not_read_are_stepped_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.pth");
    let other = |class: &[u8]| {
        let storage = [&b"("[..], &text("storage"), class, &text("1"), &text("cpu"), &int(3), b"NtQ"].concat();
        let shape = [&b"K\x00("[..], &int(3), b"t(", &int(1), b"t"].concat();
        [&b"ctorch._utils\n_rebuild_tensor_v2\n("[..], &storage, &shape, b"\x89NtR"].concat()
    };
    // The other storage comes first, so that a wrong size moves the floats.
    let file = |class: &[u8], size: usize, inside: bool| {
        let model = [&b"}"[..], &text("w"), &tensor(2, 0, &[2], &[1]), b"s"].concat();
        let odd = [text("odd"), other(class), b"s".to_vec()].concat();
        let entries = if inside { [&model[..], &odd, b"s"].concat() } else { [&model[..], b"s", &odd].concat() };
        let keys = [&b"\x80\x02]"[..], &text("1"), b"a", &text("0"), b"a."].concat();
        let data = [&3i64.to_le_bytes()[..], &vec![7; 3 * size], &2i64.to_le_bytes(), &0.5f32.to_le_bytes()].concat();
        let rest = [&keys[..], &data, &2.0f32.to_le_bytes()].concat();
        legacy(&[&b"}"[..], &text("model"), &entries, b"."].concat(), &rest)
    };
    for (class, size) in [
        (&b"ctorch\nComplexFloatStorage\n"[..], 8),
        (b"ctorch\nComplexDoubleStorage\n", 16),
        (b"ctorch\nCharStorage\n", 1),
        (b"ctorch\nQInt32Storage\n", 4),
        (b"ctorch.storage\nUntypedStorage\n", 1),
    ] {
        std::fs::write(&path, file(class, size, false)).unwrap();
        let read = read_weights(&path).unwrap();
        assert_eq!((values(&read, "w"), read.tensors.len()), (vec![0.5, 2.0], 1));
        assert_eq!(read.notes, ["passed over, and nothing in it was run: odd"]);
        assert!(refused(&file(class, size, true)).contains("`odd` stands among the tensors"));
    }
    assert!(refused(&file(b"csome\nStorage\n", 4, false)).contains("storage 1 has elements of a type"));
}

#[test]
fn a_dictionary_without_tensors_is_told_where_they_are_looked_for() {
    let net = [&b"}"[..], &text("net"), b"}", &text("w"), &tensor(2, 0, &[2], &[1]), b"ss."].concat();
    let message = refused(&legacy(&net, &storage_of_two()));
    assert!(message.contains("no tensors in its dictionary (net)"), "{message}");
    assert!(message.contains("`model`, `state_dict`, `model_state_dict`, `model_state`"), "{message}");
}

/// `{'w': tensor}` with a storage of two floats behind it.
fn one_tensor(len: i64, offset: i64, shape: &[i64], stride: &[i64]) -> Vec<u8> {
    let body = [&b"}"[..], &text("w"), &tensor(len, offset, shape, stride), b"s."].concat();
    legacy(&body, &storage_of_two())
}

#[test]
fn a_tensor_lies_inside_its_storage_or_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.pth");
    std::fs::write(&path, one_tensor(2, 0, &[2], &[1])).unwrap();
    assert_eq!(values(&read_weights(&path).unwrap(), "w"), [0.5, 2.0]);
    for (len, offset, shape, stride) in [
        (2, 1, &[2][..], &[1][..]),
        (2, 0, &[2], &[2]),
        (2, -1, &[1], &[1]),
        (2, 0, &[-1], &[1]),
        (2, 0, &[2], &[-1]),
        (2, 0, &[1 << 40], &[0]),
        (2, 0, &[1 << 40, 1 << 40], &[0, 0]),
        (2, 0, &[2], &[1, 1]),
        (2, i64::MAX, &[2], &[i64::MAX]),
        (1 << 60, 0, &[1 << 60], &[1]),
        (2, 0, &[i64::MAX, 4, 0], &[1, 1, 1]),
        (2, 0, &[0, i64::MAX, 4], &[1, 1, 1]),
    ] {
        let message = refused(&one_tensor(len, offset, shape, stride));
        assert!(message.contains("`w`") || message.contains("as a size"), "{shape:?}: {message}");
    }
}

#[test]
fn nothing_is_run_and_no_size_is_believed() {
    let nested = [vec![b')'; 1], vec![0x85; 200_000], b".".to_vec()].concat();
    let in_itself = b"]q\x00h\x00a.";
    for (body, part) in [
        (&b"cos\nsystem\nX\x02\x00\x00\x00ls\x85R."[..], "an object of `os.system`, no dictionary"),
        (b"c__builtin__\neval\n.", "holds `__builtin__.eval`, no dictionary"),
        (b"(ios\nsystem\n.", "INST"),
        (b"\x8c\x01a.", "holds a text, no dictionary"),
        (b"ccollections\nOrderedDict\n)\x81.", "no tensors in its dictionary ()"),
        (b"K\x01K\x02\x93.", "a name that is no text"),
        (b"]\x90.", "without its start"),
        (b"](\x90.", "no set"),
        (b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffa.", "cut"),
        (b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7fa.", "cut"),
        (b"X\xff\xff\xff\xffa.", "cut"),
        (b"T\xff\xff\xff\x7fa.", "cut"),
        (b"]r\xff\xff\xff\xff.", "memo"),
        (b"h\x05.", "memo"),
        (b"t.", "damaged"),
        (b"R.", "stack"),
        (b".", "stack"),
        (b"(.", "stack"),
        (b"}K\x01K\x02K\x03R.", "a call of an integer"),
        (b"ccollections\nOrderedDict\n(NNtR.", "2 arguments"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n)R.", "0 arguments"),
        (b"K\x01K\x02b.", "BUILD"),
        (b"NQ.", "storage"),
        (b"N.", "no dictionary"),
        (b"}.", "no tensors"),
        (b"}X\x01\x00\x00\x00aK\x01s.", "no tensors in its dictionary (a)"),
        (&nested, "no dictionary"),
        (in_itself, "no dictionary"),
    ] {
        let message = refused(&legacy(body, b"\x80\x02]."));
        assert!(message.contains(part), "{}: {message}", String::from_utf8_lossy(&body[..body.len().min(40)]));
    }
    // A storage that says it has 2^61 elements.
    let mut bytes = one_tensor(2, 0, &[2], &[1]);
    let at = bytes.len() - 16;
    bytes[at..at + 8].copy_from_slice(&(1i64 << 61).to_le_bytes());
    assert!(refused(&bytes).contains("cut"));
    bytes[at..at + 8].copy_from_slice(&(-1i64).to_le_bytes());
    assert!(refused(&bytes).contains("negative"));
    // Another pickle, and other archives.
    assert!(refused(b"\x80\x02K\x07.").contains("not one of torch.save"));
    assert!(refused(b"PK\x03\x04 and so on").contains("cut"));
}

/// No prefix is taken for a whole file, and no changed byte brings the reader down.
#[test]
fn damage_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.pth");
    for name in ["state.zip.pth", "state.legacy.pth"] {
        let bytes = std::fs::read(fixture(name)).unwrap();
        // Every seventh place, and each of the last ones, where a reader is soonest content.
        for length in (0..bytes.len()).step_by(7).chain(bytes.len() - 40..bytes.len()) {
            std::fs::write(&path, &bytes[..length]).unwrap();
            assert!(read_weights(&path).is_err(), "{name}: {length} of {} bytes were accepted", bytes.len());
        }
        for at in (0..bytes.len()).step_by(5) {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << (at % 8);
            std::fs::write(&path, &changed).unwrap();
            // Either is right: a changed name is still a name. What counts is that it comes back.
            let _ = read_weights(&path);
        }
    }
}
