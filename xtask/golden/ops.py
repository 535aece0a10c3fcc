"""Goldens of docent-ops: each op's output, and the gradient of sum(output * cotangent) for each input."""

import torch
import torch.nn.functional as F
from torchvision import ops as tv
from torchvision.models.detection._utils import BoxCoder

from common import LOSS, OPS, Golden, both, fill, pick

FAST = 1e-4  # the stated bound of the big 3x3 convolutions
# name: input, weight, then what differs from stride 1, padding 0, dilation 1, groups 1, no affine, no addend, no ReLU.
CONVS = {
    "1x1": dict(x=[2, 5, 7, 9], w=[4, 5, 1, 1], addend="bias"),
    "1x1_stride2": dict(x=[2, 4, 9, 10], w=[6, 4, 1, 1], stride=2, affine=True),
    "1x1_wide": dict(x=[2, 40, 9, 13], w=[33, 40, 1, 1], affine=True, relu=True),
    "1x1_groups": dict(x=[2, 6, 5, 7], w=[4, 3, 1, 1], groups=2, addend="bias"),
    "3x3": dict(x=[2, 4, 9, 11], w=[5, 4, 3, 3], padding=1, relu=True, addend="bias"),
    "3x3_wide": dict(x=[2, 32, 13, 15], w=[24, 32, 3, 3], padding=1, affine=True, relu=True),
    "3x3_plain": dict(x=[1, 3, 8, 8], w=[4, 3, 3, 3], padding=1),
    "3x3_valid": dict(x=[2, 3, 7, 8], w=[4, 3, 3, 3]),
    "3x3_padding2": dict(x=[1, 3, 5, 6], w=[4, 3, 3, 3], padding=2),
    "3x3_one_pixel": dict(x=[2, 3, 1, 1], w=[4, 3, 3, 3], padding=1),
    # Big enough for a faster algorithm with less exact sums, which may take a bound of its own.
    "3x3_deep": dict(x=[1, 64, 23, 29], w=[48, 64, 3, 3], padding=1, affine=True, relu=True, samples=400, stated=FAST),
    "3x3_deep_bias": dict(x=[2, 64, 14, 14], w=[64, 64, 3, 3], padding=1, addend="bias", samples=400, stated=FAST),
    # torchvision's FrozenBatchNorm2d with small variances.
    "frozen_eps0": dict(x=[2, 4, 6, 5], w=[5, 4, 1, 1], frozen=0.0),
    "frozen_eps5": dict(x=[2, 4, 6, 5], w=[5, 4, 1, 1], frozen=1e-5),
    "frozen_eps3": dict(x=[2, 4, 6, 5], w=[5, 4, 3, 3], padding=1, frozen=1e-3, relu=True),
    "3x3_stride2": dict(x=[2, 4, 10, 9], w=[5, 4, 3, 3], stride=2, padding=1, affine=True, relu=True),
    "3x3_residual": dict(x=[2, 4, 7, 5], w=[4, 4, 3, 3], padding=1, affine=True, addend="residual", relu=True),
    "3x3_dilated": dict(x=[2, 3, 11, 9], w=[4, 3, 3, 3], padding=2, dilation=2),
    "3x3_dilated_stride2": dict(x=[2, 3, 11, 12], w=[4, 3, 3, 3], stride=2, padding=2, dilation=2),
    "3x3_stride3": dict(x=[2, 3, 11, 13], w=[4, 3, 3, 3], stride=3, padding=1, addend="bias"),
    "3x3_groups": dict(x=[2, 6, 7, 9], w=[4, 3, 3, 3], padding=1, groups=2, affine=True),
    "3x3_depthwise": dict(x=[2, 6, 9, 7], w=[6, 1, 3, 3], padding=1, groups=6, affine=True, relu=True),
    "3x3_depthwise_stride2": dict(x=[2, 6, 10, 7], w=[6, 1, 3, 3], stride=2, padding=1, groups=6),
    "3x3_groups_dilated": dict(x=[2, 6, 9, 8], w=[4, 3, 3, 3], padding=2, dilation=2, groups=2),
    "3x3_depthwise_dilated": dict(x=[2, 5, 9, 8], w=[5, 1, 3, 3], padding=2, dilation=2, groups=5),
    "5x5_depthwise": dict(x=[1, 6, 9, 7], w=[6, 1, 5, 5], padding=2, groups=6, affine=True),
    "7x7": dict(x=[1, 2, 9, 10], w=[3, 2, 7, 7], padding=3),
    "5x5": dict(x=[1, 3, 9, 8], w=[2, 3, 5, 5], padding=2),
    "7x7_stem": dict(x=[2, 3, 19, 22], w=[6, 3, 7, 7], stride=2, padding=3, affine=True, relu=True),
}
# Scale and offset of a frozen norm's tensors.
FROZEN = dict(weight=(0.5, 1.0), bias=(0.3, 0.0), running_mean=(0.3, 0.0), running_var=(0.02, 0.021))
LINEARS = {"bias": dict(bias=True, relu=False), "bias_relu": dict(bias=True, relu=True), "plain": dict(bias=False, relu=False)}
POOLS = {"3s2p1": dict(x=[2, 3, 11, 8], kernel=3, stride=2, padding=1), "2s2": dict(x=[2, 3, 7, 9], kernel=2, stride=2, padding=0)}
UPSAMPLES = {"odd": dict(x=[2, 3, 3, 4], size=[5, 7]), "double": dict(x=[1, 2, 4, 3], size=[8, 6]), "triple": dict(x=[1, 2, 2, 3], size=[7, 8])}
ROIS = {
    "ratio2": dict(sampling=2, aligned=False, output=7),
    "ratio2_aligned": dict(sampling=2, aligned=True, output=3),
    "adaptive": dict(sampling=0, aligned=False, output=3),
    "adaptive_aligned": dict(sampling=0, aligned=True, output=2),
}


def record(golden: Golden, case: str, compute, stated=OPS, samples=None):
    """compute(dtype) gives (output, {name: leaf}); the cotangent is filled by the case's name. With `samples`, only so
    many values are kept of the output and of each gradient."""

    def run(dtype):
        out, leaves = compute(dtype)
        (out * fill(f"{case}.cotangent", out.shape).to(dtype)).sum().backward()
        return out, {name: leaf.grad for name, leaf in leaves.items()}

    (out, grads), (out32, grads32) = both(run)
    keep = (lambda *value: golden.summary(*value, samples)) if samples else golden.add
    keep(f"{case}.out", out, out32, stated)
    for name, grad in grads.items():
        keep(f"{case}.grad.{name}", grad, grads32[name], stated)


def leaf(name, shape, dtype, scale=1.0, offset=0.0):
    return fill(name, shape, scale, offset).to(dtype).requires_grad_()


def convolution(case, p):
    def compute(dtype):
        x = leaf(f"{case}.x", p["x"], dtype)
        fan_in = p["w"][1] * p["w"][2] * p["w"][3]
        w = leaf(f"{case}.w", p["w"], dtype, (3.0 / fan_in) ** 0.5)
        leaves = {"x": x, "w": w}
        y = F.conv2d(x, w, None, p.get("stride", 1), p.get("padding", 0), p.get("dilation", 1), p.get("groups", 1))
        channels = (1, p["w"][0], 1, 1)
        if p.get("affine"):
            y = y * fill(f"{case}.scale", channels, 0.5, 1.0).to(dtype) + fill(f"{case}.shift", channels, 0.3).to(dtype)
        if "frozen" in p:
            norm = tv.FrozenBatchNorm2d(p["w"][0], p["frozen"]).to(dtype)
            norm.load_state_dict({key: fill(f"{case}.{key}", [p["w"][0]], *FROZEN[key]) for key in FROZEN})
            y = norm(y)
        if p.get("addend") == "bias":
            leaves["bias"] = leaf(f"{case}.bias", [p["w"][0]], dtype, 0.3)
            y = y + leaves["bias"].reshape(channels)
        if p.get("addend") == "residual":
            leaves["residual"] = leaf(f"{case}.residual", y.shape, dtype)
            y = y + leaves["residual"]
        return (F.relu(y) if p.get("relu") else y), leaves

    return compute


def layers(golden: Golden):
    for name, p in CONVS.items():
        golden.note(f"case conv.{name}", p)
        record(golden, f"conv.{name}", convolution(f"conv.{name}", p), p.get("stated", OPS), p.get("samples"))

    for name, p in LINEARS.items():
        golden.note(f"case linear.{name}", p)
        case = f"linear.{name}"

        def compute(dtype):
            leaves = {"x": leaf(f"{case}.x", [5, 19], dtype), "w": leaf(f"{case}.w", [7, 19], dtype, 0.3)}
            if p["bias"]:
                leaves["bias"] = leaf(f"{case}.bias", [7], dtype, 0.3)
            y = F.linear(leaves["x"], leaves["w"], leaves.get("bias"))
            return (F.relu(y) if p["relu"] else y), leaves

        record(golden, case, compute)

    for case, act in [("batch_norm.plain", False), ("batch_norm.relu", True)]:
        shape, eps = [2, 3, 5, 7], 1e-5
        stats = {}

        def compute(dtype):
            leaves = {"x": leaf(f"{case}.x", shape, dtype, 1.5, 0.5), "gamma": leaf(f"{case}.gamma", [3], dtype, 0.5, 1.0), "beta": leaf(f"{case}.beta", [3], dtype, 0.3)}
            x = leaves["x"]
            stats[dtype] = x.mean((0, 2, 3)).detach(), x.var((0, 2, 3), unbiased=True).detach()
            y = F.batch_norm(x, None, None, leaves["gamma"], leaves["beta"], True, 0.0, eps)
            return (F.relu(y) if act else y), leaves

        record(golden, case, compute)
        for i, name in enumerate(["mean", "var_unbiased"]):
            golden.add(f"{case}.{name}", stats[torch.float64][i], stats[torch.float32][i], OPS)

    for case, groups, act in [("group_norm.2", 2, False), ("group_norm.3_relu", 3, True)]:
        def compute(dtype):
            leaves = {"x": leaf(f"{case}.x", [2, 6, 5, 3], dtype, 1.5, 0.5), "gamma": leaf(f"{case}.gamma", [6], dtype, 0.5, 1.0), "beta": leaf(f"{case}.beta", [6], dtype, 0.3)}
            y = F.group_norm(leaves["x"], groups, leaves["gamma"], leaves["beta"], 1e-5)
            return (F.relu(y) if act else y), leaves

        record(golden, case, compute)

    def unary(case, shape, function):
        def compute(dtype):
            x = leaf(f"{case}.x", shape, dtype, 2.0)
            return function(x), {"x": x}

        record(golden, case, compute)

    unary("relu", [2, 3, 5, 7], F.relu)
    unary("softmax", [7, 11], lambda x: torch.softmax(x * 1.0, -1))
    unary("subsample", [2, 3, 7, 10], lambda x: F.max_pool2d(x, 1, 2, 0))
    index = pick("index_rows", 6, 4).tolist() + [5, 0, 5]
    golden.note("case index_rows", dict(index=index))
    unary("index_rows", [6, 3, 2], lambda x: x[torch.tensor(index)])
    for name, p in POOLS.items():
        golden.note(f"case max_pool.{name}", p)
        unary(f"max_pool.{name}", p["x"], lambda x: F.max_pool2d(x, p["kernel"], p["stride"], p["padding"]))
    # Quarters from -1 to 1: nearly every window has its maximum twice, and the first one gets the gradient.
    ties = (fill("max_pool_ties.x", [2, 3, 9, 10]) * 4).round() / 4
    golden.exact("max_pool_ties.x", ties)

    def compute(dtype):
        x = ties.clone().to(dtype).requires_grad_()
        return F.max_pool2d(x, 3, 2, 1), {"x": x}

    record(golden, "max_pool_ties", compute)
    for name, p in UPSAMPLES.items():
        golden.note(f"case upsample.{name}", p)
        unary(f"upsample.{name}", p["x"], lambda x: F.interpolate(x, size=p["size"], mode="nearest"))
        case = f"upsample_add.{name}"

        def compute(dtype):
            top, lateral = leaf(f"{case}.top", p["x"], dtype), leaf(f"{case}.lateral", p["x"][:2] + p["size"], dtype)
            return F.interpolate(top, size=p["size"], mode="nearest") + lateral, {"top": top, "lateral": lateral}

        record(golden, case, compute)

    def compute(dtype):
        a, b = leaf("add_relu.a", [2, 3, 5, 7], dtype), leaf("add_relu.b", [2, 3, 5, 7], dtype)
        return F.relu(a + b), {"a": a, "b": b}

    record(golden, "add_relu", compute)


def losses(golden: Golden):
    """Scalars: loss = sum over the picks / normaliser, and its gradient."""

    def scalar(case, compute):
        def run(dtype):
            loss, leaves = compute(dtype)
            loss.backward()
            return loss.detach(), {name: value.grad for name, value in leaves.items()}

        (loss, grads), (loss32, grads32) = both(run)
        golden.add(f"{case}.loss", loss, loss32, LOSS)
        for name, grad in grads.items():
            golden.add(f"{case}.grad.{name}", grad, grads32[name], LOSS)

    picks = torch.from_numpy(pick("loss.picks", 60, 13)).unique().flip(0)
    golden.exact("loss.picks", picks)

    def bce(dtype):
        x = leaf("bce.x", [3, 4, 5], dtype, 6.0)
        # The plain form of this loss overflows at such logits.
        x.data.view(-1)[picks[:3]] = torch.tensor([90.0, -90.0, 41.0], dtype=dtype)
        target = (fill("bce.target", picks.shape) > 0).to(dtype)
        return F.binary_cross_entropy_with_logits(x.view(-1)[picks], target, reduction="sum") / 17.0, {"x": x}

    golden.exact("bce.x", leaf_with_big_logits(picks))
    golden.exact("bce.target", (fill("bce.target", picks.shape) > 0).to(torch.float64))
    scalar("bce", bce)
    for name, beta in [("beta_ninth", 1.0 / 9.0), ("beta_1", 1.0), ("beta_0", 0.0)]:
        case = f"smooth_l1.{name}"

        def compute(dtype):
            x = leaf(f"{case}.x", [3, 4, 5], dtype)
            return F.smooth_l1_loss(x.view(-1)[picks], fill(f"{case}.target", picks.shape).to(dtype), reduction="sum", beta=beta) / 7.0, {"x": x}

        scalar(case, compute)
    labels = torch.tensor([0, 3, 2, 0, 5, 1, 4, 0, 2])
    golden.exact("cross_entropy.labels", labels)

    def cross_entropy(dtype):
        x = leaf("cross_entropy.x", [9, 6], dtype, 8.0)
        return F.cross_entropy(x, labels, reduction="sum") / 9.0, {"x": x}

    scalar("cross_entropy", cross_entropy)

    def masked_l2(dtype):
        student = leaf("masked_l2.student", [2, 3, 5, 4], dtype)
        teacher, mask = fill("masked_l2.teacher", [2, 3, 5, 4]).to(dtype), fill("masked_l2.mask", [2, 5, 4], 0.5, 0.5).to(dtype)
        return (mask[:, None] * (student - teacher) ** 2).sum() / 11.0, {"student": student}

    scalar("masked_l2", masked_l2)


def leaf_with_big_logits(picks):
    x = fill("bce.x", [3, 4, 5], 6.0)
    x.view(-1)[picks[:3]] = torch.tensor([90.0, -90.0, 41.0], dtype=torch.float64)
    return x


def make_boxes(name, n, height, width, spread):
    """n boxes with centres over the image and sides up to `spread`; float32 values."""
    cx, cy = fill(f"{name}.cx", [n], width / 2, width / 2), fill(f"{name}.cy", [n], height / 2, height / 2)
    w, h = fill(f"{name}.w", [n], spread * 0.45, spread * 0.55), fill(f"{name}.h", [n], spread * 0.45, spread * 0.55)
    return torch.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], 1).float().double()


def roi_align(golden: Golden):
    boxes = make_boxes("roi.boxes", 9, 60, 80, 50)
    # Across each border, wholly outside, thinner than a cell, and larger than the image.
    special = torch.tensor([[-13.3, -9.1, 21.2, 17.7], [61.4, 40.3, 95.8, 77.9], [130.2, 90.1, 150.3, 120.7], [30.15, 12.35, 30.55, 40.85], [-20.3, -31.1, 121.7, 99.3]])
    boxes = torch.cat([boxes, special.double()]).float().double()
    batch = torch.arange(len(boxes)) % 2
    golden.exact("roi.boxes", boxes)
    rois = torch.cat([batch[:, None].double(), boxes], 1)
    for name, p in ROIS.items():
        golden.note(f"case roi_align.{name}", p)
        case = f"roi_align.{name}"

        def compute(dtype, rois=rois):
            x = leaf(f"{case}.x", [2, 3, 15, 20], dtype)
            y = tv.roi_align(x, rois.to(dtype), p["output"], 0.25, p["sampling"] or -1, p["aligned"])
            return y, {"x": x}

        record(golden, case, compute)


def geometry(golden: Golden):
    a, b = make_boxes("boxes.a", 8, 60, 80, 60), make_boxes("boxes.b", 11, 60, 80, 60)
    golden.exact("boxes.a", a)
    golden.exact("boxes.b", b)
    for name, function in [("iou", tv.box_iou), ("giou", tv.generalized_box_iou)]:
        golden.add(f"boxes.{name}", function(a, b), function(a.float(), b.float()), OPS, "abs")
    clip = lambda t: tv.clip_boxes_to_image(t, (50, 70))
    golden.exact("boxes.clip", clip(a))
    for name, weights in [("rpn", (1.0, 1.0, 1.0, 1.0)), ("head", (10.0, 10.0, 5.0, 5.0))]:
        coder = BoxCoder(weights)
        encoded = lambda t: coder.encode_single(b[:8].to(t.dtype), t)
        golden.add(f"coder.{name}.encode", encoded(a), encoded(a.float()), OPS)
        deltas = fill(f"coder.{name}.deltas", [8, 4], 2.0)
        deltas[0, 2], deltas[1, 3] = 30.0, 41.0  # beyond the clip at ln(1000/16)
        golden.exact(f"coder.{name}.deltas", deltas)
        golden.add(f"coder.{name}.decode", coder.decode_single(deltas, a), coder.decode_single(deltas.float(), a.float()), OPS)

    boxes = make_boxes("nms.boxes", 120, 100, 120, 60)
    # A quarter of the scores is shared, so the order of ties is seen.
    scores = (fill("nms.scores", [120], 0.5, 0.5) * 40).floor() / 64
    classes = torch.from_numpy(pick("nms.classes", 4, 3).repeat(40))
    golden.exact("nms.boxes", boxes)
    golden.exact("nms.scores", scores)
    golden.exact("nms.classes", classes)
    for threshold in [0.3, 0.5, 0.7]:
        margin = (tv.box_iou(boxes, boxes) - threshold).abs().min().item()
        assert margin > 1e-5, f"an IoU lies {margin} from {threshold}"
        for name, function in [("nms", lambda x, s: tv.nms(x, s, threshold)), ("batched_nms", lambda x, s: tv.batched_nms(x, s, classes, threshold))]:
            keep = function(boxes, scores)
            assert keep.tolist() == function(boxes.float(), scores.float()).tolist()
            golden.exact(f"{name}.{threshold}", keep)


def many_boxes(golden: Golden):
    """More boxes than torchvision shifts by class and suppresses at once: it then goes class by class, as we always do."""
    boxes, scores = make_boxes("nms_many.boxes", 1200, 300, 400, 90), fill("nms_many.scores", [1200], 0.5, 0.5)
    classes = torch.from_numpy(pick("nms_many.classes", 5, 4).repeat(300))
    assert boxes.numel() > 4000 and len(scores.unique()) == len(scores)
    same = torch.triu(classes[:, None] == classes[None, :], diagonal=1)
    assert (tv.box_iou(boxes, boxes)[same] - 0.5).abs().min() > 1e-5
    keep = tv.batched_nms(boxes, scores, classes, 0.5)
    assert torch.equal(keep, tv.batched_nms(boxes.float(), scores.float(), classes, 0.5))
    golden.exact("nms_many.boxes", boxes)
    golden.exact("nms_many.classes", classes)
    golden.exact("nms_many.keep", keep)


def goldens() -> Golden:
    golden = Golden()
    layers(golden)
    losses(golden)
    roi_align(golden)
    geometry(golden)
    many_boxes(golden)
    return golden
