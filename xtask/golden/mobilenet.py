"""Goldens of docent-detect's MobileNetV2: torchvision's at a quarter of its width, its stages and every gradient.

    python xtask/golden/mobilenet.py FILE      features of torchvision's ImageNet weights (a safetensors file with torchvision's
                                               names), and multiply-adds by width: the literals in crates/detect/tests/mobilenet.rs
"""

import sys

import torch
from torch import nn
from torchvision.models import mobilenet_v2
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.ops import FrozenBatchNorm2d

from common import GRADIENT, OPS, Golden, both, fill, image, parameter

WIDTH, SIZES = 0.25, [(67, 90), (53, 75)]
STAGES = [3, 6, 13, 17]
# Some values must pass 6, the upper corner. Batch statistics undo the convolutions' gain, so there the norms' weights grow.
GAIN, NORM_SCALE = 1.2, dict(frozen=1.0, batch=4.0)
NORMS = {"frozen": FrozenBatchNorm2d, "batch": nn.BatchNorm2d}


def body(norm, width: float) -> nn.Module:
    """The features up to the last stage, as torchvision's detectors hold a backbone: names `0.0.weight`, `1.conv.0.0.weight`, .."""
    features = mobilenet_v2(width_mult=width, norm_layer=norm).features
    return IntermediateLayerGetter(features, {str(stage): str(i) for i, stage in enumerate(STAGES)})


def pixels() -> torch.Tensor:
    """Two images of different size at the corner of one batch, zeros beside them; centred on 0."""
    height, width = (max(s[i] for s in SIZES) for i in (0, 1))
    batch = torch.zeros(len(SIZES), 3, height, width, dtype=torch.float64)
    for i, (h, w) in enumerate(SIZES):
        batch[i, :, :h, :w] = 4 * image(f"mobilenet/image{i}", h, w) - 2
    return batch


def run(kind: str, dtype) -> dict:
    model = body(NORMS[kind], WIDTH).double()
    state = model.state_dict()
    for name, value in state.items():
        if not name.endswith("num_batches_tracked"):
            state[name] = parameter("mobilenet", name, value.shape, GAIN)
        if name.endswith("weight") and value.dim() == 1:
            state[name] = state[name] * NORM_SCALE[kind]
    model.load_state_dict(state)
    model = model.to(dtype).train()
    above = []
    for module in model.modules():
        if isinstance(module, nn.ReLU6):
            module.register_forward_pre_hook(lambda _, inputs: above.append((inputs[0] > 6).double().mean()))
    levels = list(model(pixels().to(dtype)).values())
    assert sum(float(share) > 0.001 for share in above) > 10, f"{kind}: 6 is hardly ever reached: {above}"
    sum((x * fill(f"mobilenet/cotangent{i}", x.shape).to(dtype)).sum() for i, x in enumerate(levels)).backward()
    return dict(levels=levels, gradients={n: p.grad for n, p in model.named_parameters()}, buffers={n: b for n, b in model.named_buffers() if "running" in n})


def goldens() -> Golden:
    golden = Golden()
    golden.note("sizes", SIZES)
    golden.note("width", WIDTH)
    golden.note("gain", GAIN)
    golden.note("norm_scale", NORM_SCALE)
    for kind in NORMS:
        a, b = both(lambda dtype, kind=kind: run(kind, dtype))
        for i, (x, y) in enumerate(zip(a["levels"], b["levels"])):
            golden.summary(f"{kind}.c{i + 2}", x, y, 10 * OPS, 64)
        for name, gradient in a["gradients"].items():
            golden.summary(f"{kind}.grad.{name}", gradient, b["gradients"][name], GRADIENT, 8)
        if kind == "batch":
            for name, buffer in a["buffers"].items():
                golden.summary(f"{kind}.buffer.{name}", buffer, b["buffers"][name], GRADIENT, 4)
    return golden


def literals(path: str):
    from safetensors.torch import load_file

    model = body(nn.BatchNorm2d, 1.0).double().eval()
    tensors = {name.removeprefix("features."): value.double() for name, value in load_file(path).items() if not name.startswith("features.18.")}
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    assert not unexpected and all(name.endswith("num_batches_tracked") for name in missing), (missing, unexpected)
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    with torch.no_grad():
        for level in model(((image("mobilenet/real", 96, 128) - mean) / std)[None]).values():
            at = [tuple(n * (2 * i + 1) // 8 for n in level.shape[1:]) for i in range(4)]
            print(list(level.shape), float(torch.linalg.vector_norm(level)), [float(level[0][place]) for place in at])
    for width in (1.0, 0.5, 1.4):
        total = []
        model = body(nn.BatchNorm2d, width).eval()
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(lambda m, _, out: total.append(out[0].numel() * m.weight[0].numel()))
        model(torch.zeros(1, 3, 224, 224))
        print("multiply-adds", width, sum(total))


if __name__ == "__main__":
    torch.set_num_threads(1)
    literals(sys.argv[1])
