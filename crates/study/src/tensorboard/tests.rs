//! The file read back: frames, checksums, tags; what a resume keeps.

use docent_train::events::{DistillRecord, TermRecord};

use super::*;

/// CRC-32C bit by bit, from its polynomial.
fn crc_by_bits(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82F6_3B78 } else { crc >> 1 };
        }
    }
    !crc
}

fn step(step: usize, taught: bool) -> Event {
    let term = |name: &str, raw: f64| TermRecord { name: name.into(), raw, weighted: raw / 4.0 };
    let distill = DistillRecord {
        terms: vec![term("feat", 1.5), term("cls", 0.5)],
        decay: 0.75,
        ratio: 0.25,
        stats: vec![("gated_share".into(), 0.375)],
    };
    Event::Step(StepRecord {
        step,
        steps: 9,
        epoch: 1,
        lr: 0.015625,
        losses: [("rpn_objectness", 0.5), ("rpn_box", 0.25), ("head_class", 1.25), ("head_box", 0.125)]
            .map(|(name, loss)| (name.to_owned(), loss))
            .into(),
        total: 2.0 + step as f64,
        grad_norm: 3.0,
        adapter_grad_norm: taught.then_some(0.5),
        positives: 11,
        data_seconds: 0.0,
        step_seconds: 0.5,
        memory_mib: 100.0,
        distill: taught.then_some(distill),
        diagnosis: None,
    })
}

fn scored(step: usize, epoch: usize) -> Event {
    Event::Evaluated(EvalRecord { step, epoch, ap: 0.5, ap50: 0.75, ap75: 0.25, seconds: 1.0 })
}

fn read(folder: &Path) -> Vec<Record> {
    let file = std::fs::read(folder.join(FILE_NAME)).unwrap();
    let all: Vec<(Record, usize)> = records(&file).collect();
    assert_eq!(all.last().map(|(_, end)| *end), Some(file.len()), "every byte belongs to a sound frame");
    all.into_iter().map(|(record, _)| record).collect()
}

fn value(record: &Record, tag: &str) -> Option<f32> {
    record.summary.as_ref()?.value.iter().find(|v| v.tag == tag)?.simple_value
}

#[test]
fn frames_carry_the_masked_checksums_of_their_definition() {
    // RFC 3720's test vector, and the mask's by hand.
    assert_eq!(crc_by_bits(&[0; 32]), 0x8A91_36AA);
    let dir = tempfile::tempdir().unwrap();
    let mut writer = TensorBoardWriter::resume(dir.path(), 0, 0, "seed = 1\n").unwrap();
    writer.event(&step(1, true)).unwrap();
    let file = std::fs::read(dir.path().join(FILE_NAME)).unwrap();
    let mut rest = file.as_slice();
    let mut frames = 0;
    while !rest.is_empty() {
        let masked = |bytes: &[u8]| {
            let crc = crc_by_bits(bytes);
            crc.rotate_right(15).wrapping_add(0xA282_EAD8)
        };
        let number = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap());
        let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
        assert_eq!(number(8), masked(&rest[..8]));
        assert_eq!(number(12 + length), masked(&rest[12..12 + length]));
        rest = &rest[16 + length..];
        frames += 1;
    }
    assert_eq!(frames, 3);
}

#[test]
fn everything_that_an_event_says_stands_under_its_tag() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = TensorBoardWriter::resume(dir.path(), 0, 0, "seed = 1\n").unwrap();
    for event in [step(1, false), step(2, true), scored(2, 1), Event::Note { text: "x".into() }] {
        writer.event(&event).unwrap();
    }
    let all = read(dir.path());
    assert_eq!(all.len(), 5, "version, recipe, two steps, an evaluation");
    assert_eq!(all[0].file_version.as_deref(), Some("brain.Event:2"));
    assert!(all.iter().all(|r| r.wall_time > 1.7e9));
    let recipe = &all[1].summary.as_ref().unwrap().value[0];
    assert!(format!("{recipe:?}").contains("text") && recipe.tag == "recipe/text_summary");
    assert_eq!(all[2..].iter().map(|r| r.step).collect::<Vec<_>>(), [1, 2, 2]);
    for (tag, want) in
        [("loss/total", 4.0), ("loss/head_class", 1.25), ("optimizer/lr", 0.015625), ("loop/positives", 11.0)]
    {
        assert_eq!(value(&all[3], tag), Some(want), "{tag}");
    }
    for (tag, want) in [
        ("distill_raw/feat", 1.5),
        ("distill_weighted/feat", 0.375),
        ("distill_weighted/cls", 0.125),
        ("distill/decay", 0.75),
        ("distill/gated_share", 0.375),
        ("optimizer/adapter_grad_norm", 0.5),
    ] {
        assert_eq!((value(&all[2], tag), value(&all[3], tag)), (None, Some(want)), "{tag}");
    }
    assert_eq!((value(&all[4], "eval/AP"), value(&all[4], "eval/AP50")), (Some(0.5), Some(0.75)));
}

#[test]
fn a_resume_cuts_what_came_after_its_state_and_a_torn_frame() {
    let dir = tempfile::tempdir().unwrap();
    // Two epochs of two steps.
    let whole = [step(1, true), step(2, true), scored(2, 1), step(3, true), step(4, true), scored(4, 2)];
    let begin = || {
        let mut writer = TensorBoardWriter::resume(dir.path(), 0, 0, "").unwrap();
        whole.iter().for_each(|event| writer.event(event).unwrap());
    };
    begin();
    let bare = |records: Vec<Record>| records.into_iter().map(|r| Record { wall_time: 0.0, ..r }).collect::<Vec<_>>();
    let all = bare(read(dir.path()));
    assert_eq!(all.len(), 8);
    for (state, kept) in [((4, 2), 6), ((4, 1), 5), ((3, 1), 4), ((2, 1), 3), ((2, 0), 2), ((1, 0), 1), ((0, 0), 0)] {
        begin();
        drop(TensorBoardWriter::resume(dir.path(), state.0, state.1, "").unwrap());
        assert_eq!(bare(read(dir.path())), all[..2 + kept], "{state:?}");
    }
    // A program that was killed in the middle of a frame.
    begin();
    let path = dir.path().join(FILE_NAME);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 5]).unwrap();
    let mut writer = TensorBoardWriter::resume(dir.path(), 4, 2, "").unwrap();
    writer.event(&scored(4, 2)).unwrap();
    assert_eq!(bare(read(dir.path())), all);
    // What is no event file at all is begun anew.
    std::fs::write(&path, b"not one").unwrap();
    drop(TensorBoardWriter::resume(dir.path(), 4, 2, "").unwrap());
    assert_eq!(read(dir.path()).len(), 2);
}
