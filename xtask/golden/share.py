"""Goldens of docent-distill's other feature sources and proposal sources: backbone stages, and RoIs from the teacher's proposals."""

import math

import torch
import torch.nn.functional as F
from torchvision.models.detection._utils import BoxCoder

from common import GRADIENT, LOSS, Golden, both, fill
from distill import BOXES, CLASSES, DEFAULTS, HEAD, LABELS, LEVELS, STRIDES, STUDENT, TEACHER, box_term, class_term, factor, one_box, rois, teacher_deltas

STAGES = 4
STUDENT_STAGES, TEACHER_STAGES = [2, 3, 5, 6], [4, 5, 6, 7]
VARIANTS = {
    "stages": dict(tap="stages"),
    "stages_global": dict(tap="stages", adapt="conv1x1", level_norm="global", levels="by_scale", base=20.0),
    "teacher_to_student": dict(share="teacher_to_student"),
    "both": dict(share="both"),
    "both_all": dict(share="both", tap="stages", cls_select="all", cls_loss="kl", temperature=2.0, reg_gate="both", reg_norm="sampled"),
}
# What this file defines itself; the other options of DEFAULTS go to the functions of distill.py.
OWN = dict(tap="fpn", share="student_to_teacher")


def shared_rois():
    """RoIs as they might come from the teacher's proposals: other jitters, fewer, the truth itself last. float32 values."""
    out = []
    for i, truth in enumerate(BOXES):
        near = truth[[0, 1, 2, 2]].clone()
        near[:3] += fill(f"share.jitter{i}", [3, 4], 0.1) * (near[:3, 2:] - near[:3, :2]).repeat(1, 2)
        corner = fill(f"share.corner{i}", [4, 2], 30.0, 35.0)
        far = torch.cat([corner, corner + fill(f"share.side{i}", [4, 2], 10.0, 20.0)], 1)
        boxes = torch.cat([far[:2], near, far[2:]]).float().double()
        zero = torch.zeros(2, dtype=torch.int64)
        matched = boxes.clone()
        matched[2:6] = truth[[0, 1, 2, 2]]
        out.append((boxes, torch.cat([zero, LABELS[i][[0, 1, 2, 2]], zero]), matched.float().double()))
    boxes, labels, matched = (torch.cat(parts) for parts in zip(*out))
    return boxes, labels, matched, torch.arange(2).repeat_interleave(8)


def shared_teacher_deltas():
    boxes, labels, matched, _ = shared_rois()
    deltas = fill("share.teacher_deltas", [len(boxes), CLASSES, 4], 0.8)
    way = fill("share.teacher_way", [len(boxes), 1], 0.9, 0.6)
    rows = torch.arange(len(boxes))
    deltas[rows, labels] = deltas[rows, labels] * 0.2 + way * BoxCoder(HEAD).encode_single(matched, boxes)
    return deltas.reshape(len(boxes), -1).float().double()


def painted(level, levels, option, dtype):
    """[B, H, W]: the mask of one of `levels` levels."""
    out = torch.zeros(len(BOXES), *LEVELS[level], dtype=dtype)
    for i, boxes in enumerate(BOXES):
        for box in boxes:
            side = math.sqrt((box[2] - box[0]) * (box[3] - box[1]))
            chosen = min(max(math.floor(math.log2(side / option["base"] + 1e-6)), 0), levels - 1)
            if option["levels"] == "all" or chosen == level:
                out[i] = torch.maximum(out[i], one_box(box, *LEVELS[level], STRIDES[level], option, dtype))
    return out


def feature_term(maps, teacher, adapters, option, dtype):
    means, sums, masses = [], [], []
    for level, (student, target) in enumerate(zip(maps, teacher)):
        mask = painted(level, len(maps), option, dtype)
        if mask.sum() == 0:
            continue
        weight, bias = adapters[level]
        distance = ((F.conv2d(student, weight, bias, padding=weight.shape[2] // 2) - target) ** 2).mean(1)
        sums.append((mask * distance).sum())
        masses.append(mask.sum())
        means.append(sums[-1] / masses[-1])
    return sum(sums) / sum(masses) if option["level_norm"] == "global" else sum(means) / len(means)


def compute(name, dtype):
    option = {**DEFAULTS, **OWN, **VARIANTS[name]}
    stages = option["tap"] == "stages"
    levels = STAGES if stages else len(LEVELS)
    own, other = (STUDENT_STAGES, TEACHER_STAGES) if stages else ([STUDENT] * levels, [TEACHER] * levels)
    kernel = 1 if option["adapt"] == "conv1x1" else 3
    leaves = {}
    for level in range(levels):
        leaves[f"map.{level}"] = fill(f"share.{option['tap']}.student.{level}", [2, own[level], *LEVELS[level]])
        scale = math.sqrt(3 / (own[level] * kernel**2))
        leaves[f"adapt.{level}.weight"] = fill(f"share.{option['tap']}.weight.{level}", [other[level], own[level], kernel, kernel], scale)
        leaves[f"adapt.{level}.bias"] = fill(f"share.{option['tap']}.bias.{level}", [other[level]], 0.1)
    sets = dict(student_to_teacher=["own"], teacher_to_student=["shared"], both=["own", "shared"])[option["share"]]
    data = dict(own=(rois(), teacher_deltas(HEAD)), shared=(shared_rois(), shared_teacher_deltas()))
    for key in sets:
        count = len(data[key][1])
        leaves[f"{key}.class_logits"] = fill(f"share.{key}.student.class_logits", [count, CLASSES], 6.0)
        leaves[f"{key}.box_deltas"] = fill(f"share.{key}.student.box_deltas", [count, 4 * CLASSES], 1.2)
    leaves = {key: value.to(dtype).requires_grad_() for key, value in leaves.items()}
    teacher = [fill(f"share.{option['tap']}.teacher.{level}", [2, other[level], *LEVELS[level]]).to(dtype) for level in range(levels)]
    adapters = [(leaves[f"adapt.{level}.weight"], leaves[f"adapt.{level}.bias"]) for level in range(levels)]
    feat = feature_term([leaves[f"map.{level}"] for level in range(levels)], teacher, adapters, option, dtype)
    cls, reg, gates = 0.0, 0.0, []
    for key in sets:
        regions, deltas = data[key]
        positives = torch.where(regions[1] > 0)[0]
        logits = fill(f"share.{key}.teacher.class_logits", [len(deltas), CLASSES], 8.0).to(dtype)
        cls = cls + class_term(leaves[f"{key}.class_logits"], logits, regions[1], positives, option) / len(sets)
        value, gate = box_term(leaves[f"{key}.box_deltas"], deltas.to(dtype), regions, positives, HEAD, option)
        reg = reg + value / len(sets)
        gates.append(gate)
    total = factor(option) * (option["w_feat"] * feat + option["w_cls"] * cls + option["w_reg"] * reg)
    total.backward()
    terms = dict(feat=feat.detach(), cls=cls.detach(), reg=reg.detach(), total=total.detach())
    # A level without a box is not computed: its leaves have no gradient.
    return terms, {key: leaf.grad for key, leaf in leaves.items() if leaf.grad is not None}, torch.cat(gates)


def goldens() -> Golden:
    golden = Golden()
    for key, (boxes, labels, matched, image), deltas in [("own", rois(), teacher_deltas(HEAD)), ("shared", shared_rois(), shared_teacher_deltas())]:
        for part, value in [("rois", boxes), ("labels", labels), ("matched", matched), ("image", image), ("teacher_deltas", deltas)]:
            golden.exact(f"{key}.{part}", value)
    for i, boxes in enumerate(BOXES):
        golden.exact(f"truth{i}.boxes", boxes.float().double())
    for name, variant in VARIANTS.items():
        golden.note(f"config {name}", variant)
        (terms, grads, gate), (terms32, grads32, gate32) = both(lambda dtype: compute(name, dtype))
        assert gate.tolist() == gate32.tolist(), f"{name}: float32 opens other gates"
        assert 0 < int(gate.sum()) < len(gate), f"{name}: the gate decides nothing"
        golden.exact(f"{name}.gate", gate.long())
        for key, value in terms.items():
            golden.add(f"{name}.{key}", value, terms32[key], LOSS)
        for key, value in grads.items():
            golden.summary(f"{name}.grad.{key}", value, grads32[key], GRADIENT, 6)
    return golden
