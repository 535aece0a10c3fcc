"""Weights to and from torchvision, through the built program.

    python xtask/golden/weights.py --fixtures ROOT     writes crates/model/tests/data/*.pth
    python xtask/golden/weights.py --check ROOT        torchvision's files converted, and a student's file loaded by torchvision
    python xtask/golden/weights.py --check ROOT --full the same with the whole fasterrcnn_resnet50_fpn instead of a narrow one

`check(root)` is for generate.py --check: it builds docent and the example `students`, and gives lines about what differs.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections import OrderedDict
from functools import partial
from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn
from torchvision.models import mobilenet_v2, resnet
from torchvision.models.detection import FasterRCNN, fasterrcnn_resnet50_fpn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign

from common import PIXELS, SCORES, image, parameter

FIXTURES = "crates/model/tests/data"
# What lets random weights find many objects of many classes: the first whose text is part of the name.
GAINS = [
    ("body.conv1.", 1.5),
    ("conv3.weight", 0.7),
    ("conv2.weight", 0.8),
    ("inner_blocks", 0.4),
    ("layer_blocks", 0.5),
    ("rpn.head.cls_logits", 0.6),
    ("rpn.head.bbox_pred", 0.15),
    ("box_predictor.cls_score", 1.2),
    ("box_predictor.bbox_pred", 0.8),
]


# Torchvision's model of a docent checkpoint


class NarrowResNet(resnet.ResNet):
    """torchvision's ResNet with every channel count times `width`, which its own `width_per_group` cannot say: that one widens
    the 3x3 layers of bottleneck blocks alone."""

    def __init__(self, depth: int, width: float, norm_layer, stride_in_1x1: bool):
        self.width = width
        block = resnet.Bottleneck if depth >= 50 else resnet.BasicBlock
        layers = {18: [2, 2, 2, 2], 34: [3, 4, 6, 3], 50: [3, 4, 6, 3], 101: [3, 4, 23, 3]}[depth]
        super().__init__(block, layers, norm_layer=norm_layer)
        self.conv1 = nn.Conv2d(3, round(64 * width), 7, 2, 3, bias=False)
        self.bn1 = norm_layer(round(64 * width))
        self.channels = [round(64 * width) * block.expansion * 2**i for i in range(4)]
        for module in self.modules():
            if stride_in_1x1 and isinstance(module, resnet.Bottleneck) and module.conv2.stride == (2, 2):
                module.conv1.stride, module.conv2.stride = (2, 2), (1, 1)

    def _make_layer(self, block, planes, blocks, stride=1, dilate=False):
        base = round(64 * self.width)
        if planes == 64:
            self.inplanes = base
        return super()._make_layer(block, base * planes // 64, blocks, stride, dilate)


def norm_layer(config: dict):
    kind, eps = config["norm"], config["norm_eps"]
    if kind == "batch_norm":
        return partial(nn.BatchNorm2d, eps=eps)
    if kind == "frozen_batch_norm":
        return partial(FrozenBatchNorm2d, eps=eps)
    return lambda channels: nn.GroupNorm(kind["group_norm"]["groups"], channels, eps=eps)


def backbone_of(config: dict, fpn: int) -> BackboneWithFPN:
    norm = norm_layer(config)
    if config["architecture"] == "mobilenet_v2":
        body, stages = mobilenet_v2(width_mult=config["width_multiplier"], norm_layer=norm).features, [3, 6, 13, 17]
        channels = [body[stage].out_channels for stage in stages]
        return BackboneWithFPN(body, {str(stage): str(i) for i, stage in enumerate(stages)}, channels, fpn)
    body = NarrowResNet(config["depth"], config["width_multiplier"], norm, config["stride_in_1x1"])
    return BackboneWithFPN(body, {f"layer{i + 1}": str(i) for i in range(4)}, body.channels, fpn)


def model_of(config: dict, resize: dict) -> FasterRCNN:
    """torchvision's Faster R-CNN of a checkpoint's `model` and `resize` metadata."""
    anchors, rpn, roi, normalize = (config[k] for k in ("anchors", "rpn", "roi", "normalize"))
    assert not roi["aligned"] and roi["canonical_level"] == 4
    return FasterRCNN(
        backbone_of(config["backbone"], config["fpn_channels"]),
        rpn_anchor_generator=AnchorGenerator(tuple((s,) for s in anchors["sizes"]), (tuple(anchors["ratios"]),) * 5),
        rpn_pre_nms_top_n_test=rpn["pre_nms_top_n_test"],
        rpn_post_nms_top_n_test=rpn["post_nms_top_n_test"],
        rpn_nms_thresh=rpn["nms_threshold"],
        rpn_score_thresh=rpn["score_threshold"],
        box_roi_pool=MultiScaleRoIAlign(["0", "1", "2", "3"], roi["pooler_resolution"], roi["sampling_ratio"], canonical_scale=roi["canonical_box_size"]),
        box_head=TwoMLPHead(config["fpn_channels"] * roi["pooler_resolution"] ** 2, roi["representation_size"]),
        box_predictor=FastRCNNPredictor(roi["representation_size"], config["classes"]),
        box_score_thresh=roi["score_threshold"],
        box_nms_thresh=roi["nms_threshold"],
        box_detections_per_img=roi["detections_per_image"],
        bbox_reg_weights=tuple(roi["box_weights"]),
        min_size=resize["shortest"],
        max_size=resize["longest"],
        image_mean=normalize["mean"],
        image_std=normalize["std"],
    ).eval()


def load_student(path: Path):
    """A docent checkpoint in torchvision: its model, strictly loaded, and its categories."""
    with safe_open(path, framework="pt") as file:
        meta = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    model = model_of(json.loads(meta["model"]), json.loads(meta["resize"]))
    model.load_state_dict(tensors, strict=True)
    return model, json.loads(meta["categories"])


# The two ways


def run(*command, cwd: Path) -> str:
    command = [str(part) for part in command]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


class Program:
    """docent and the example that writes students, built as `cargo test` builds them."""

    def __init__(self, root: Path):
        lines = run("cargo", "build", "-p", "docent", "-p", "docent-study", "--bin", "docent", "--example", "students", "--message-format", "json", cwd=root)
        built = [json.loads(line) for line in lines.splitlines()]
        self.files = {message["target"]["name"]: message["executable"] for message in built if message.get("executable")}

    def docent(self, *arguments) -> str:
        return run(self.files["docent"], *arguments, cwd=Path.cwd())

    def students(self, folder: Path):
        run(self.files["students"], folder, cwd=folder)

    def predict(self, checkpoint: Path, folder: Path) -> list:
        out = folder / f"{checkpoint.stem}-found"
        self.docent("predict", "--checkpoint", checkpoint, "--out", out, "--threshold", "1", folder / "7.png")
        return json.loads((out / "detections.json").read_text())


def picture(folder: Path, height: int, width: int) -> torch.Tensor:
    """An 8-bit image on disk, and as torchvision takes it."""
    from PIL import Image

    pixels = (image("weights/picture", height, width) * 255).round().to(torch.uint8)
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(folder / "7.png")
    return pixels.float() / 255


def differences(what: str, model: FasterRCNN, categories: list, pixels: torch.Tensor, found: list) -> list[str]:
    """Compares docent's detections with those of `model` in float64: as many, in the same order, of the same category. The bounds
    are the larger of the stated ones and three times torch-float32's own distance."""
    ids = torch.tensor([0] + [c["id"] for c in categories])
    with torch.no_grad():
        single = model([pixels])[0]
        expected = model.double()([pixels.double()])[0]
        model.float()
    n, classes = len(expected["scores"]), len(expected["labels"].unique())
    print(f"{what}: {n} detections of {classes} classes in torchvision, {len(found)} in docent", end="")
    assert n >= 50 and classes >= 10, f"{what}: too few detections to say anything"
    assert single["labels"].tolist() == expected["labels"].tolist(), f"{what}: torch's float32 finds something else"
    if [f["category_id"] for f in found] != ids[expected["labels"]].tolist():
        print()
        return [f"{what}: other detections, or another order"]
    corners = torch.tensor([f["bbox"] for f in found], dtype=torch.float64)
    corners[:, 2:] += corners[:, :2]
    scores = torch.tensor([f["score"] for f in found], dtype=torch.float64)
    faults = []
    for kind, mine, stated in [("boxes", corners, PIXELS), ("scores", scores, SCORES)]:
        distance, own = (float((expected[kind] - x.double()).abs().max()) for x in (mine, single[kind]))
        bound = max(stated, 3 * own)
        print(f"; {kind} within {distance:.1e} (torch's float32 {own:.1e})", end="")
        if distance > bound:
            faults.append(f"{what}: {kind} off by {distance:.2e}, allowed {bound:.2e}")
    print()
    return faults


def fill_model(model: FasterRCNN, seed: str, pixels: torch.Tensor):
    """Formula weights, and a class bias under which no class wins everywhere."""
    state = model.state_dict()
    for name, value in state.items():
        if not name.endswith("num_batches_tracked"):
            gain = next((g for part, g in GAINS if part in name), 1.0)
            state[name] = parameter(seed, name, value.shape, gain).float()
    model.load_state_dict(state)
    seen = []
    hook = model.roi_heads.box_predictor.register_forward_hook(lambda _, __, out: seen.append(out[0]))
    with torch.no_grad():
        model([pixels])
    hook.remove()
    bias = model.roi_heads.box_predictor.cls_score.bias
    logits = seen[0]
    spread = (logits - logits.mean(0)).std()
    # Sure enough of something to pass the threshold among that many classes.
    model.roi_heads.box_predictor.cls_score.weight.data *= 3 / spread
    bias.data = -(logits.mean(0) - bias.data) * 3 / spread


def old_names(state: dict) -> OrderedDict:
    """As the COCO_V1 files spell them: blocks of one convolution without their number, no count of batches."""
    block = re.compile(r"(_blocks\.\d+|rpn\.head\.conv)(\.0)+\.(weight|bias)$")
    return OrderedDict((block.sub(r"\1.\3", name), value) for name, value in state.items() if not name.endswith("num_batches_tracked"))


def check_import(program: Program, folder: Path, full: bool) -> list[str]:
    """torchvision's files, new and old, through `weights convert` and `predict`."""
    pixels = picture(folder, 120, 160) if not full else picture(folder, 240, 320)
    faults = []
    if full:
        # Without weights torchvision takes a plain BatchNorm, which in evaluation is the frozen one.
        model = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    else:
        backbone = dict(architecture="resnet", depth=50, width_multiplier=0.25, norm="frozen_batch_norm", norm_eps=1e-5, stride_in_1x1=False)
        model = FasterRCNN(backbone_of(backbone, 32), min_size=160, max_size=240, box_head=TwoMLPHead(32 * 49, 64), box_predictor=FastRCNNPredictor(64, 91))
    model.eval()
    fill_model(model, "weights/import", pixels)
    for name, state, legacy, eps in [("present-zip", model.state_dict(), False, 1e-5), ("old-legacy", old_names(model.state_dict()), True, 0.0)]:
        path, converted = folder / f"{name}.pth", folder / f"{name}.safetensors"
        torch.save(state, path, _use_new_zipfile_serialization=not legacy)
        print(program.docent("weights", "inspect", "--brief", path), end="")
        print(program.docent("weights", "convert", path, converted), end="")
        if not full:
            resized(converted, 160, 240)
        for module in model.modules():
            if isinstance(module, (FrozenBatchNorm2d, nn.BatchNorm2d)):
                module.eps = eps
        with safe_open(converted, framework="pt") as file:
            categories = json.loads(file.metadata()["categories"])
        faults += differences(f"import {name}", model, categories, pixels, program.predict(converted, folder))
    return faults


def resized(path: Path, shortest: int, longest: int):
    """Another input size in a checkpoint's metadata: a small one keeps this check quick."""
    from safetensors.torch import load_file, save_file

    with safe_open(path, framework="pt") as file:
        meta = dict(file.metadata())
    # Changed on purpose, so the digest of what was written goes.
    del meta["content_sha256"]
    meta["resize"] = json.dumps({**json.loads(meta["resize"]), "shortest": shortest, "longest": longest})
    save_file(load_file(path), path, metadata=meta)


def check_export(program: Program, folder: Path) -> list[str]:
    """Students that a Rust example wrote, in torchvision."""
    pixels = picture(folder, 120, 160)
    program.students(folder)
    faults = []
    for path in sorted(folder.glob("student-*.safetensors")):
        model, categories = load_student(path)
        faults += differences(f"export {path.stem}", model, categories, pixels, program.predict(path, folder))
        half = folder / f"half-{path.stem}.safetensors"
        program.docent("weights", "convert", path, half, "--f16")
        assert half.stat().st_size < 0.6 * path.stat().st_size, f"{half.stat().st_size} of {path.stat().st_size} bytes"
        model, _ = load_student(half)
        faults += differences(f"export {half.stem}", model, categories, pixels, program.predict(half, folder))
    return faults


def check(root: Path, full: bool = False) -> list[str]:
    """Both ways; lines about what differs."""
    program = Program(root)
    with tempfile.TemporaryDirectory() as name:
        return check_import(program, Path(name), full) + check_export(program, Path(name))


# The fixtures of the Rust tests of the reader


def values(n: int, dtype) -> torch.Tensor:
    """-1, -0.5, 0, ..: exact in every float type here; integers count from -2, bytes from 0."""
    if dtype == torch.bool:
        return torch.arange(n) % 3 == 0
    if dtype.is_floating_point:
        return (torch.arange(n, dtype=torch.float64) / 2 - 1).to(dtype)
    return torch.arange(n).to(dtype) - (0 if dtype == torch.uint8 else 2)


def fixture_state() -> OrderedDict:
    types = dict(f32=torch.float32, f64=torch.float64, f16=torch.float16, bf16=torch.bfloat16, i64=torch.int64, i32=torch.int32, i16=torch.int16, u8=torch.uint8, bool=torch.bool)
    state = OrderedDict((f"type.{name}", values(6, dtype).reshape(2, 3)) for name, dtype in types.items())
    shared = values(24, torch.float32)
    state["view.whole"] = shared.reshape(2, 3, 4)
    state["view.permuted"] = shared.reshape(2, 3, 4).permute(2, 0, 1)
    state["view.rows"] = shared[5:17].reshape(3, 4)
    state["view.stepped"] = shared[1::5]
    state["scalar"] = torch.tensor(42)
    state["empty"] = torch.zeros(0, 4)
    state["parameter"] = nn.Parameter(values(3, torch.float32))
    # As nn.Module.state_dict gives it: attributes beside the entries.
    state._metadata = OrderedDict(version=1)
    return state


def fixtures(root: Path):
    folder = root / FIXTURES
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(fixture_state(), folder / "state.zip.pth")
    torch.save(fixture_state(), folder / "state.legacy.pth", _use_new_zipfile_serialization=False)
    wrapped = dict(model=OrderedDict(weight=values(4, torch.float32)), epoch=3, lr=0.02, done=True, name="x", best=None, milestones=[1, 2], size=(800, 1333))
    torch.save(wrapped, folder / "wrapped.pth", _use_new_zipfile_serialization=False)
    torch.save(dict(model=OrderedDict(weight=values(4, torch.float32)), args=argparse.Namespace(lr=1)), folder / "namespace.pth", _use_new_zipfile_serialization=False)
    torch.save(OrderedDict(weight=values(4, torch.float32)), folder / "protocol4.pth", pickle_protocol=4)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--fixtures", type=Path, metavar="ROOT")
    action.add_argument("--check", type=Path, metavar="ROOT")
    parser.add_argument("--full", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.fixtures:
        fixtures(arguments.fixtures)
        return 0
    faults = check(arguments.check, arguments.full)
    for fault in faults:
        print(fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
