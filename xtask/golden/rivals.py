"""Goldens of docent-distill's other methods: the formulas of their papers, written once more with torch's own functions."""

import math

import torch
import torch.nn.functional as F
from torchvision.ops import box_iou

from common import GRADIENT, LOSS, Golden, both, fill
from distill import BOXES, CLASSES, LEVELS, STRIDES, STUDENT, TEACHER, one_box, rois

PYRAMID = 3
RATIOS = (0.5, 1.0, 2.0)
VARIANTS = {
    "fitnets": dict(method="fitnets"),
    "fitnets_1x1": dict(method="fitnets", adapt="conv1x1", weight=2.0),
    "fgfi": dict(method="fgfi"),
    "fgfi_psi": dict(method="fgfi", psi=0.8, adapt="conv3x3_relu"),
    "pkd": dict(method="pkd", adapt="conv3x3"),
    "pkd_plain": dict(method="pkd", weight=2.0),
    "defeat": dict(method="defeat"),
    "defeat_soft": dict(method="defeat", alpha_obj=1.5, alpha_bg=0.25, beta_obj=0.5, beta_bg=0.125, t_obj=2.0, t_bg=3.0),
}
WEIGHTS = {
    "fitnets": dict(weight=0.64),
    "fgfi": dict(weight=0.01, psi=0.5),
    "pkd": dict(weight=6.0, adapt="none"),
    "defeat": dict(alpha_obj=0.64, alpha_bg=0.64, beta_obj=0.25, beta_bg=0.25, t_obj=1.0, t_bg=1.0),
}


def anchors(level):
    """Three ratios of one size around each cell's corner, in the order (row, column, anchor). float32 values."""
    height, width = LEVELS[level]
    size, stride = 6.0 * STRIDES[level], STRIDES[level]
    base = torch.tensor([[-size / math.sqrt(r), -size * math.sqrt(r), size / math.sqrt(r), size * math.sqrt(r)] for r in RATIOS]).double() / 2
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    corner = stride * torch.stack([x, y, x, y], -1).double()
    return (corner[:, :, None] + base.float().double()).reshape(-1, 4).float().double()


def near_anchor_mask(level, psi):
    """[B, 1, H, W] of FGFI. Decided in float64: no IoU lies near its bar."""
    masks = []
    for boxes in BOXES:
        iou = box_iou(anchors(level), boxes.float().double()).reshape(*LEVELS[level], len(RATIOS), len(boxes))
        bar = psi * iou.amax((0, 1, 2))
        decided = ((iou - bar).abs() > 1e-5) | (bar == 0)
        assert decided.all(), f"level {level}: an anchor lies on the bar"
        masks.append(((iou > bar).any(-1).any(-1)).double())
    return torch.stack(masks)[:, None]


def object_mask(level, dtype):
    option = dict(grid="cell_center", mask="binary")
    each = [torch.stack([one_box(box, *LEVELS[level], STRIDES[level], option, dtype) for box in boxes]).amax(0) for boxes in BOXES]
    return torch.stack(each)[:, None]


def kl(student, teacher, temperature):
    """Sum over rows of KL(teacher || student) at a temperature, times its square."""
    target = (teacher / temperature).softmax(1)
    return F.kl_div((student / temperature).log_softmax(1), target, reduction="sum") * temperature**2


def compute(name, dtype):
    option = {"adapt": "conv3x3", **WEIGHTS[VARIANTS[name]["method"]], **VARIANTS[name]}
    method, plain = option["method"], option["adapt"] == "none"
    own = TEACHER if plain else STUDENT
    kernel = 1 if option["adapt"] == "conv1x1" else 3
    leaves = {}
    for level in range(PYRAMID):
        leaves[f"map.{level}"] = fill(f"rivals.student.{own}.{level}", [2, own, *LEVELS[level]])
        if not plain:
            leaves[f"adapt.{level}.weight"] = fill(f"rivals.weight.{level}", [TEACHER, own, kernel, kernel], math.sqrt(3 / (own * kernel**2)))
            leaves[f"adapt.{level}.bias"] = fill(f"rivals.bias.{level}", [TEACHER], 0.1)
    labels = rois()[1]
    if method == "defeat":
        leaves["class_logits"] = fill("rivals.student.class_logits", [len(labels), CLASSES], 6.0)
    leaves = {key: value.to(dtype).requires_grad_() for key, value in leaves.items()}
    inside, outside = [], []
    for level in range(PYRAMID):
        s, t = leaves[f"map.{level}"], fill(f"rivals.teacher.{level}", [2, TEACHER, *LEVELS[level]], 0.7, 0.2).to(dtype)
        if not plain:
            s = F.conv2d(s, leaves[f"adapt.{level}.weight"], leaves[f"adapt.{level}.bias"], padding=kernel // 2)
        if option["adapt"].endswith("relu"):
            s = s.relu()
        if method == "fitnets":
            inside.append(0.5 * F.mse_loss(s, t))
        elif method == "fgfi":
            mask = near_anchor_mask(level, option["psi"]).to(dtype)
            inside.append((mask * (s - t) ** 2).sum() / (2 * mask.sum()))
        elif method == "pkd":
            # 1 - Pearson's r of each channel, by its own definition.
            rows = lambda x: x.transpose(0, 1).reshape(TEACHER, -1)
            inside.append((1 - torch.stack([torch.corrcoef(torch.stack([a, b]))[0, 1] for a, b in zip(rows(s), rows(t))])).mean())
        else:
            mask, square = object_mask(level, dtype), (s - t) ** 2
            inside.append((mask * square).sum() / (2 * mask.sum() * TEACHER))
            outside.append(((1 - mask) * square).sum() / (2 * (1 - mask).sum() * TEACHER))
    mean = lambda values: sum(values) / len(values)
    if method == "defeat":
        logits, target = leaves["class_logits"], fill("rivals.teacher.class_logits", [len(labels), CLASSES], 8.0).to(dtype)
        objects = labels > 0
        terms = dict(
            feat_obj=mean(inside),
            feat_bg=mean(outside),
            cls_obj=kl(logits[objects], target[objects], option["t_obj"]) / int(objects.sum()),
            cls_bg=kl(logits[~objects], target[~objects], option["t_bg"]) / int((~objects).sum()),
        )
        weights = [option[key] for key in ("alpha_obj", "alpha_bg", "beta_obj", "beta_bg")]
        total = sum(w * term for w, term in zip(weights, terms.values()))
    else:
        terms = {dict(fitnets="hint", fgfi="imitation", pkd="pearson")[method]: mean(inside)}
        total = option["weight"] * mean(inside)
    total.backward()
    terms = {key: value.detach() for key, value in terms.items()} | dict(total=total.detach())
    return terms, {key: leaf.grad for key, leaf in leaves.items()}


def goldens() -> Golden:
    golden = Golden()
    boxes, labels, matched, image = rois()
    for key, value in [("rois", boxes), ("labels", labels), ("matched", matched), ("image", image)]:
        golden.exact(key, value)
    for i, truth in enumerate(BOXES):
        golden.exact(f"truth{i}.boxes", truth.float().double())
    for level in range(PYRAMID):
        golden.exact(f"anchors.{level}", anchors(level))
        for psi in (0.5, 0.8):
            golden.exact(f"mask.{psi}.{level}", near_anchor_mask(level, psi))
    for name, variant in VARIANTS.items():
        golden.note(f"config {name}", variant)
        (terms, grads), (terms32, grads32) = both(lambda dtype: compute(name, dtype))
        for key, value in terms.items():
            golden.add(f"{name}.{key}", value, terms32[key], LOSS)
        for key, value in grads.items():
            golden.summary(f"{name}.grad.{key}", value, grads32[key], GRADIENT, 6)
    return golden
