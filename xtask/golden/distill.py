"""Goldens of docent-distill: the method's terms and their gradients, written once more, straight from docs/method.md."""

import math

import torch
import torch.nn.functional as F
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import box_iou, clip_boxes_to_image

from common import GRADIENT, LOSS, OPS, Golden, both, fill

SIZES, PADDED = [(90, 120), (96, 101)], (96, 128)
LEVELS, STRIDES = [(24, 32), (12, 16), (6, 8), (3, 4), (2, 2)], [4, 8, 16, 32, 64]
STUDENT, TEACHER, CLASSES, ROIS = 5, 7, 6, 12
EPOCH, EPOCHS = 3, 12
ITERATION, ITERATIONS = 21, 120
HEAD = (10.0, 10.0, 5.0, 5.0)
# Two overlapping boxes and a thin one; one inside a single cell of P2 and two others. Exact in float32.
BOXES = [
    torch.tensor([[10.3, 12.7, 70.9, 60.2], [45.1, 30.4, 110.7, 85.3], [90.6, 5.2, 92.3, 51.9]]).double(),
    torch.tensor([[33.1, 41.3, 35.2, 42.9], [4.7, 8.9, 60.4, 90.6], [55.3, 60.7, 98.2, 92.1]]).double(),
]
LABELS = [torch.tensor([1, 4, 2]), torch.tensor([5, 3, 1])]
DEFAULTS = dict(
    w_feat=0.32, w_cls=0.25, w_reg=0.25, mask="gaussian", levels="all", base=56.0, grid="cell_center", level_norm="per_level_mean", adapt="conv3x3",
    cls_select="positives", cls_loss="bce", temperature=1.0, cls_norm="positives", reg_gate="teacher_vs_proposal", gate_margin=0.0, reg_loss="smooth_l1",
    reg_norm="gated", decay="linear", decay_unit="epoch", decay_end=0.0, warmup_iters=0,
)  # fmt: skip
# Settings that differ from the defaults. `weights` (the teacher's box coder), `positives` and `milestones` (steps) are none.
VARIANTS = {
    "default": {},
    "other_coder": dict(weights=(5.0, 4.0, 2.0, 2.5)),
    "no_positives": dict(positives=False),
    "binary_global": dict(mask="binary", level_norm="global", adapt="conv1x1"),
    "by_scale": dict(levels="by_scale", base=20.0, level_norm="sum", adapt="conv3x3_relu"),
    "int_box": dict(grid="int_box"),
    "ones": dict(mask="ones", decay="cosine"),
    "kl_all": dict(cls_select="all", cls_loss="kl", temperature=2.0),
    "soft_ce_correct": dict(cls_select="teacher_correct", cls_loss="soft_ce", temperature=3.0),
    "better_sampled": dict(cls_select="teacher_better", cls_norm="sampled", reg_norm="sampled"),
    "student_gate_giou": dict(reg_gate="teacher_vs_student", reg_loss="giou"),
    "both_gates_l2": dict(reg_gate="both", reg_loss="l2", gate_margin=0.02),
    "no_gate_l1": dict(reg_gate="none", reg_loss="l1"),
    # The drop after step 20 holds in step 21, that after step 21 not yet.
    "decay_step": dict(decay="step", milestones=[20, 21, 60]),
    "decay_none_plain": dict(decay="none", adapt="none"),
    "decay_iteration": dict(decay_unit="iteration", decay_end=0.2, warmup_iters=40),
    "decay_cosine_end": dict(decay="cosine", decay_end=0.1),
}
NO_SETTING = ("weights", "positives", "milestones")


def check_boxes():
    """No side on a cell's centre or border, no centre on a border: there the mask would hang on the last bit."""
    for stride in STRIDES:
        for boxes in BOXES:
            sides, centres = boxes / stride, (boxes[:, :2] + boxes[:, 2:]) / 2 / stride
            for at in (sides, sides - 0.5, centres):
                assert (at - at.round()).abs().min() > 1e-4, f"a box meets the grid of stride {stride}"


def rois():
    """Each image's RoIs: its first truth itself, jittered truths, then background. float32 values."""
    out = []
    for i, truth in enumerate(BOXES):
        near = truth[[0, 0, 1, 1, 2, 2]].clone()
        sides = (near[:, 2:] - near[:, :2]).repeat(1, 2)
        near[1:] += fill(f"distill.jitter{i}", [5, 4], 0.15) * sides[1:]
        # The matched truth is given, so a background RoI may lie anywhere.
        corner = fill(f"distill.corner{i}", [6, 2], 30.0, 35.0)
        far = torch.cat([corner, corner + fill(f"distill.side{i}", [6, 2], 10.0, 20.0)], 1)
        boxes = torch.cat([near, far]).float().double()
        labels = torch.cat([LABELS[i][[0, 0, 1, 1, 2, 2]], torch.zeros(6, dtype=torch.int64)])
        matched = torch.cat([truth[[0, 0, 1, 1, 2, 2]], boxes[6:]]).float().double()
        out.append((boxes, labels, matched))
    boxes, labels, matched = (torch.cat(parts) for parts in zip(*out))
    return boxes, labels, matched, torch.arange(2).repeat_interleave(ROIS)


def teacher_deltas(weights):
    """Noise, and for each RoI's true class about the way to its truth, so that the gate opens for some. float32 values."""
    boxes, labels, matched, _ = rois()
    deltas = fill("distill.teacher_deltas", [len(boxes), CLASSES, 4], 0.8)
    ideal = BoxCoder(weights).encode_single(matched, boxes)
    way = fill("distill.teacher_way", [len(boxes), 1], 0.9, 0.6)
    rows = torch.arange(len(boxes))
    deltas[rows, labels] = deltas[rows, labels] * 0.2 + way * ideal
    return deltas.reshape(len(boxes), -1).float().double()


def one_box(box, height, width, stride, option, dtype):
    """One box's mask on one image and level."""
    y, x = torch.meshgrid(torch.arange(height, dtype=dtype), torch.arange(width, dtype=dtype), indexing="ij")
    x1, y1, x2, y2 = box.to(dtype)
    if option["grid"] == "cell_center":
        x, y = (x + 0.5) * stride, (y + 0.5) * stride
        inside = (x >= x1) & (x <= x2) & (y >= y1) & (y <= y2)
    else:
        x1, y1, x2, y2 = (torch.trunc(v / stride) for v in (x1, y1, x2, y2))
        inside = (x >= x1) & (x < x2) & (y >= y1) & (y < y2)
        if x2 <= x1 or y2 <= y1:
            return torch.zeros_like(x)
    value = torch.ones_like(x)
    if option["mask"] == "gaussian":
        dx, dy = (x - (x1 + x2) / 2) / ((x2 - x1) / 2), (y - (y1 + y2) / 2) / ((y2 - y1) / 2)
        value = torch.exp(-(dx**2) / 2 - dy**2 / 2)
    value = torch.where(inside, value, torch.zeros_like(value))
    if option["grid"] == "cell_center":
        row, column = int((box[1] + box[3]) / 2 // stride), int((box[0] + box[2]) / 2 // stride)
        if row < height and column < width:
            value[row, column] = 1.0
    return value


def mask(level, option, dtype):
    """[B, H, W]: the maximum over the boxes painted on this level."""
    height, width = LEVELS[level]
    if option["mask"] == "ones":
        return torch.ones(len(BOXES), height, width, dtype=dtype)
    out = torch.zeros(len(BOXES), height, width, dtype=dtype)
    for i, boxes in enumerate(BOXES):
        for box in boxes:
            if option["levels"] == "by_scale":
                side = math.sqrt((box[2] - box[0]) * (box[3] - box[1]))
                if level != min(max(math.floor(math.log2(side / option["base"] + 1e-6)), 0), 4):
                    continue
            out[i] = torch.maximum(out[i], one_box(box, height, width, STRIDES[level], option, dtype))
    return out


def feature_term(leaves, teacher, option, dtype):
    sums, masses = [], []
    for level in range(len(LEVELS)):
        m = mask(level, option, dtype)
        x = leaves[f"p{level + 2}"]
        if option["adapt"] != "none":
            w = leaves[f"adapt.{level}.weight"]
            x = F.conv2d(x, w, leaves[f"adapt.{level}.bias"], padding=w.shape[2] // 2)
        if option["adapt"].endswith("relu"):
            x = F.relu(x)
        if m.sum() > 0:
            sums.append((m[:, None] * (x - teacher[level]) ** 2).sum() / TEACHER)
            masses.append(m.sum())
    if option["level_norm"] == "global":
        return sum(sums) / sum(masses)
    each = [s / n for s, n in zip(sums, masses)]
    return sum(each) / (len(each) if option["level_norm"] == "per_level_mean" else 1)


def log_one_minus(logits):
    """log(1 - softmax) of each class: the log-sum-exp of the others less that of all."""
    k = logits.shape[1]
    others = torch.stack([torch.logsumexp(logits[:, [j for j in range(k) if j != c]], 1) for c in range(k)], 1)
    return others - torch.logsumexp(logits, 1, keepdim=True)


def class_term(student, teacher, labels, positives, option):
    rows = positives if option["cls_select"] != "all" else torch.arange(len(labels))
    p_s, p_t = student.detach().softmax(1), teacher.softmax(1)
    own = torch.arange(len(labels))
    if option["cls_select"] == "teacher_correct":
        rows = rows[p_t.argmax(1)[rows] == labels[rows]]
    if option["cls_select"] == "teacher_better":
        rows = rows[(p_t[own, labels] > p_s[own, labels])[rows]]
    count = len(labels) if option["cls_select"] == "all" or option["cls_norm"] == "sampled" else len(positives)
    t = option["temperature"]
    s, target = student[rows], (teacher[rows] / t).softmax(1)
    if option["cls_loss"] == "bce":
        value = -(target * s.log_softmax(1) + (1 - target) * log_one_minus(s)).sum()
    else:
        value = -(target * (s / t).log_softmax(1)).sum() * t * t
        if option["cls_loss"] == "kl":
            value = value + (target * (teacher[rows] / t).log_softmax(1)).sum() * t * t
    return value / max(1, count)


def giou(a, b):
    """Row by row, without the epsilon of torchvision's loss."""
    area = lambda x: (x[:, 2] - x[:, 0]) * (x[:, 3] - x[:, 1])
    overlap = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0).prod(1)
    hull = (torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])).prod(1)
    union = area(a) + area(b) - overlap
    return overlap / union - (hull - union) / hull


def box_term(student, teacher, data, positives, weights, option):
    boxes, labels, matched, image = (value[positives] for value in data)
    boxes, matched = boxes.to(student.dtype), matched.to(student.dtype)
    own, other = BoxCoder(HEAD), BoxCoder(weights)
    true_class = lambda deltas: deltas.reshape(-1, CLASSES, 4)[positives, labels]
    rs, rt = true_class(student), true_class(teacher)

    def quality(deltas, coder):
        decoded = coder.decode_single(deltas.detach(), boxes)
        clipped = torch.stack([clip_boxes_to_image(b[None], SIZES[i])[0] for b, i in zip(decoded, image)]) if len(decoded) else decoded
        return box_iou(clipped, matched).diagonal()

    teacher_iou, proposal_iou, student_iou = quality(rt, other), box_iou(boxes, matched).diagonal(), quality(rs, own)
    gate, margins = torch.ones(len(positives), dtype=torch.bool), []
    for name, against in [("teacher_vs_proposal", proposal_iou), ("teacher_vs_student", student_iou)]:
        if option["reg_gate"] in (name, "both"):
            gate &= teacher_iou > against + option["gate_margin"]
            margins += (teacher_iou - against - option["gate_margin"]).abs().tolist()
    assert all(m > 1e-5 for m in margins), f"a gate is decided by {min(margins)}"
    rt = own.encode_single(other.decode_single(rt, boxes), boxes) if weights != HEAD else rt
    rs, rt = rs[gate], rt[gate]
    if option["reg_loss"] == "giou":
        value = (1 - giou(own.decode_single(rs, boxes[gate]), own.decode_single(rt, boxes[gate]))).sum()
    elif option["reg_loss"] == "l2":
        value = ((rs - rt) ** 2).sum()
    else:
        value = F.smooth_l1_loss(rs, rt, reduction="sum", beta=1.0 if option["reg_loss"] == "smooth_l1" else 0.0)
    count = len(data[1]) if option["reg_norm"] == "sampled" else int(gate.sum())
    return value / max(1, count), gate


def factor(option):
    warmup = min(1.0, ITERATION / option["warmup_iters"]) if option["warmup_iters"] else 1.0
    done = (EPOCH - 1) / EPOCHS if option["decay_unit"] == "epoch" else (ITERATION - 1) / ITERATIONS
    form = {
        "linear": 1 - done,
        "cosine": 0.5 * (1 + math.cos(math.pi * done)),
    }.get(option["decay"])
    if form is not None:
        return warmup * (option["decay_end"] + (1 - option["decay_end"]) * form)
    return warmup * 0.1 ** sum(ITERATION > m for m in option.get("milestones", []))


def compute(name, dtype):
    option = {**DEFAULTS, **VARIANTS[name]}
    weights = option.get("weights", HEAD)
    data = rois()
    labels = data[1]
    positives = torch.where(labels > 0)[0] if option.get("positives", True) else torch.zeros(0, dtype=torch.int64)
    leaves = {}
    kernel = 1 if option["adapt"] == "conv1x1" else 3
    channels = TEACHER if option["adapt"] == "none" else STUDENT
    for level, size in enumerate(LEVELS):
        leaves[f"p{level + 2}"] = fill(f"distill.student.p{level + 2}", [2, channels, *size])
        if option["adapt"] == "none":
            continue
        leaves[f"adapt.{level}.weight"] = fill(f"distill.adapt.{level}.weight", [TEACHER, STUDENT, kernel, kernel], math.sqrt(3 / (STUDENT * kernel**2)))
        leaves[f"adapt.{level}.bias"] = fill(f"distill.adapt.{level}.bias", [TEACHER], 0.1)
    leaves["class_logits"] = fill("distill.student.class_logits", [len(labels), CLASSES], 6.0)
    leaves["box_deltas"] = fill("distill.student.box_deltas", [len(labels), CLASSES * 4], 1.2)
    leaves = {key: value.to(dtype).requires_grad_() for key, value in leaves.items()}
    teacher_maps = [fill(f"distill.teacher.p{level + 2}", [2, TEACHER, *size]).to(dtype) for level, size in enumerate(LEVELS)]
    # A margin of some 20 between logits, where the plain form of the classification term fails in float32.
    teacher_logits = fill("distill.teacher.class_logits", [len(labels), CLASSES], 12.0).to(dtype)
    feat = feature_term(leaves, teacher_maps, option, dtype)
    cls = class_term(leaves["class_logits"], teacher_logits, labels, positives, option)
    reg, gate = box_term(leaves["box_deltas"], teacher_deltas(weights).to(dtype), data, positives, weights, option)
    total = factor(option) * (option["w_feat"] * feat + option["w_cls"] * cls + option["w_reg"] * reg)
    total.backward()
    terms = dict(feat=feat.detach(), cls=cls.detach(), reg=reg.detach(), total=total.detach())
    return terms, {key: leaf.grad if leaf.grad is not None else torch.zeros_like(leaf) for key, leaf in leaves.items()}, gate


def goldens() -> Golden:
    check_boxes()
    golden = Golden()
    boxes, labels, matched, image = rois()
    for key, value in [("rois", boxes), ("labels", labels), ("matched", matched), ("image", image)]:
        golden.exact(key, value)
    for i in range(len(BOXES)):
        golden.exact(f"truth{i}.boxes", BOXES[i].float().double())
        golden.exact(f"truth{i}.labels", LABELS[i])
    for grid in ("cell_center", "int_box"):
        for level in range(len(LEVELS)):
            a, b = both(lambda dtype: mask(level, {**DEFAULTS, "grid": grid}, dtype))
            golden.add(f"mask.{grid}.p{level + 2}", a, b, OPS, "abs")
    for name, variant in VARIANTS.items():
        weights = variant.get("weights", HEAD)
        golden.note(f"config {name}", {k: v for k, v in variant.items() if k not in NO_SETTING})
        golden.note(f"weights {name}", weights)
        golden.note(f"milestones {name}", variant.get("milestones", []))
        golden.exact(f"{name}.teacher_deltas", teacher_deltas(weights))
        (terms, grads, gate), (terms32, grads32, gate32) = both(lambda dtype: compute(name, dtype))
        assert gate.tolist() == gate32.tolist(), f"{name}: float32 opens other gates"
        if name == "default":
            assert 3 <= int(gate.sum()) < len(gate), f"the gate lets {int(gate.sum())} of {len(gate)} through"
        golden.exact(f"{name}.gate", gate.long())
        for key, value in terms.items():
            golden.add(f"{name}.{key}", value, terms32[key], LOSS)
        for key, value in grads.items():
            golden.summary(f"{name}.grad.{key}", value, grads32[key], GRADIENT, 24 if name == "default" else 6)
    return golden
