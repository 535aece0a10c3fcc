"""Goldens of one training step with given proposals: a narrow model with every entry of every gradient, and a ResNet-50-FPN
of full width, whose inference is compared too."""

from functools import partial

import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from common import Golden
from margins import watched
from model import GAINS, SIZES, add_inference, add_training, build, inference, level_classes, targets, training
from stages import near_truths

CASES = {
    "eighth": dict(seed="docent0", depth=18, norm=nn.BatchNorm2d, width=0.125, fpn=16, hidden=32, entries=None),
    "full50": dict(seed="docent0", depth=50, norm=partial(FrozenBatchNorm2d, eps=0.0), width=1.0, fpn=256, hidden=1024, entries=64, inference=True),
}
PROPOSALS = 24


def make(case: dict):
    """The model of a case, its class bias set."""
    model = build(case["seed"], case["depth"], case["norm"], width=case["width"], fpn=case["fpn"], hidden=case["hidden"])
    return model, level_classes(model, inference(model, case["seed"], torch.float64)["head"][0])


def proposals(seed: str, truth: list) -> list[torch.Tensor]:
    return [near_truths(f"{seed}/proposals{i}", t["boxes"].double(), *size, PROPOSALS) for i, (t, size) in enumerate(zip(truth, SIZES))]


def decisive(margins) -> list[str]:
    """The RPN's own proposals go nowhere here: only matchers and levels decide something."""
    return [fault for fault in margins.faults() if any(word in fault for word in ("matcher", "best", "level"))]


def run(case: dict, dtype) -> dict:
    model, bias = make(case)
    truth = targets(dtype)
    given = proposals(case["seed"], truth)
    with watched(model) as margins:
        out = training(model, case["seed"], dtype, truth, given)
    out = dict(out, bias=bias, given=given, faults=decisive(margins))
    if case.get("inference"):
        with watched(model) as margins:
            out["inference"] = inference(model, case["seed"], dtype)
        out["faults"] += margins.faults()
    return out


def goldens() -> Golden:
    golden = Golden()
    golden.note("gains", GAINS)
    for name, case in CASES.items():
        a, b = run(case, torch.float64), run(case, torch.float32)
        assert not a["faults"], f"{name}: too close with seed {case['seed']}, take the next: {a['faults']}"
        golden.note(f"seed {name}", case["seed"])
        golden.exact(f"{name}.cls_bias", a["bias"])
        for i, boxes in enumerate(a["given"]):
            golden.exact(f"{name}.train.proposals{i}", boxes)
        add_training(golden, f"{name}.train", a, b, case["entries"])
        if "inference" in a:
            add_inference(golden, f"{name}.eval", a["inference"], b["inference"])
    return golden
