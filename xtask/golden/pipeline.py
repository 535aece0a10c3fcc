"""Goldens of the way from decoded images to detections in their own pixels: torchvision's `GeneralizedRCNNTransform`
(resize by `F.interpolate`, normalise, pad), the model, and the boxes scaled back."""

import torch
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import FrozenBatchNorm2d

from common import OPS, PIXELS, SCORES, Golden, image
from margins import watched
from model import CLASSES, GAINS, MEAN, STD, build, level_classes

# Enlarged; shrunk; bounded by its longer side.
SIZES = [(70, 93), (150, 201), (60, 121)]
SHORTEST, LONGEST = 96, 140
SEED = "docent0"


def pictures(dtype):
    """8-bit images as ToTensor gives them: divided by 255."""
    whole = [(image(f"{SEED}/picture{i}", h, w) * 255).floor() for i, (h, w) in enumerate(SIZES)]
    return [picture.to(dtype) / 255 for picture in whole]


def run(seed: str, dtype) -> dict:
    model = build(seed, 18, FrozenBatchNorm2d).eval()
    model.transform = GeneralizedRCNNTransform(SHORTEST, LONGEST, MEAN, STD).eval()  # in training it would leave the boxes
    seen = []
    hook = model.roi_heads.box_predictor.register_forward_hook(lambda module, inputs, out: seen.append(out[0]))
    with torch.no_grad():
        model(pictures(torch.float64))
        hook.remove()
        bias = level_classes(model, seen[0])
        model = model.to(dtype)
        with watched(model) as margins:
            detections = model(pictures(dtype))
        images, _ = model.transform(pictures(dtype))
    return dict(bias=bias, images=images, detections=detections, faults=margins.faults())


def goldens() -> Golden:
    golden = Golden()
    a, b = run(SEED, torch.float64), run(SEED, torch.float32)
    assert not a["faults"], f"too close with seed {SEED}, take the next: {a['faults']}"
    golden.note("gains", GAINS)
    golden.note("seed pipeline", SEED)
    golden.note("resize", dict(shortest=SHORTEST, longest=LONGEST))
    golden.note("pictures", SIZES)
    golden.exact("pipeline.cls_bias", a["bias"])
    golden.exact("sizes", torch.tensor(a["images"].image_sizes))
    golden.exact("padded", torch.tensor(a["images"].tensors.shape))
    golden.summary("pixels", a["images"].tensors, b["images"].tensors, OPS, 2000)
    labels = torch.cat([d["labels"] for d in a["detections"]])
    assert len(labels) >= 50 and len(labels.unique()) == CLASSES - 1, f"{labels.bincount().tolist()} detections by class"
    for i, (x, y) in enumerate(zip(a["detections"], b["detections"])):
        assert torch.equal(x["labels"], y["labels"]), "float32 gives other detections"
        golden.add(f"detections{i}.boxes", x["boxes"], y["boxes"], PIXELS, "abs")
        golden.add(f"detections{i}.scores", x["scores"], y["scores"], SCORES, "abs")
        golden.exact(f"detections{i}.labels", x["labels"])
    return golden
