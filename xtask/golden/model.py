"""Goldens of docent-detect: torchvision's Faster R-CNN with narrow backbones, in inference and in training."""

from functools import partial

import torch
from torch import nn
from torchvision.models import resnet
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import concat_box_prediction_layers
from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign

from common import GRADIENT, LOSS, PIXELS, SCORES, Golden, image, parameter, pick
from margins import watched

WIDTH, CLASSES, FPN, HIDDEN = 0.25, 11, 32, 64
SIZES = [(97, 130), (115, 101)]
ANCHORS, RATIOS = (8, 16, 32, 64, 128), (0.5, 1.0, 2.0)
PRE_NMS, POST_NMS = dict(training=120, testing=100), dict(training=50, testing=24)
DETECTIONS = 40
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
# Which gain a parameter's formula gets: the first whose text is part of the name.
GAINS = [
    ("body.conv1.", 1.5),
    ("conv3.weight", 0.7),
    ("conv2.weight", 0.8),
    ("inner_blocks", 0.4),
    ("layer_blocks", 0.5),
    ("rpn.head.cls_logits", 0.6),
    ("rpn.head.bbox_pred", 0.15),
    ("box_predictor.cls_score", 0.8),
    ("box_predictor.bbox_pred", 0.8),
]
# The seeds are the first of docent0, docent1, .. whose run keeps every margin of margins.py and the counts below.
CASES = {
    "frozen18": dict(seed="docent4", depth=18, norm=FrozenBatchNorm2d, parts=["inference", "strict", "training"]),
    "batch18": dict(seed="docent34", depth=18, norm=nn.BatchNorm2d, parts=["training", "inference"], empty_second=True),
    "frozen50": dict(seed="docent1", depth=50, norm=FrozenBatchNorm2d, parts=["inference", "training"]),
    "group34": dict(seed="docent0", depth=34, norm=partial(nn.GroupNorm, 4), parts=["training"]),
    "msra50": dict(seed="docent0", depth=50, norm=partial(FrozenBatchNorm2d, eps=1e-3), stride_in_1x1=True, parts=["features"]),
}
STRICT = 0.12  # the second score threshold, under which the limit of detections does not bind
# The second list has two overlapping objects and a thin one. To each image come two more, near proposals of the case's
# own; see `more_truth`.
TRUTH = [
    dict(boxes=[[11.3, 9.7, 43.9, 38.2], [50.6, 21.1, 118.4, 88.8], [71.7, 5.2, 90.3, 23.9]], labels=[3, 7, 10]),
    dict(boxes=[[20.4, 30.2, 68.7, 81.9], [42.1, 44.6, 93.3, 110.8], [5.6, 99.3, 60.2, 106.1]], labels=[2, 5, 9]),
]


def gain(name: str) -> float:
    return next((g for part, g in GAINS if part in name), 1.0)


class NarrowResNet(resnet.ResNet):
    """torchvision's ResNet with every channel count times `width`."""

    def __init__(self, block, layers, norm_layer, width):
        self.width = width
        super().__init__(block, layers, norm_layer=norm_layer)
        stem = int(64 * width)
        self.conv1 = nn.Conv2d(3, stem, 7, 2, 3, bias=False)
        self.bn1 = norm_layer(stem)

    def _make_layer(self, block, planes, blocks, stride=1, dilate=False):
        if planes == 64:
            self.inplanes = int(64 * self.width)
        return super()._make_layer(block, int(planes * self.width), blocks, stride, dilate)


def build(seed: str, depth: int, norm_layer, stride_in_1x1=False, width=WIDTH, fpn=FPN, hidden=HIDDEN) -> FasterRCNN:
    """A model filled by the formula, in float64. Its class bias is still the formula's: see `level_classes`."""
    block, layers = {18: (resnet.BasicBlock, [2, 2, 2, 2]), 34: (resnet.BasicBlock, [3, 4, 6, 3]), 50: (resnet.Bottleneck, [3, 4, 6, 3])}[depth]
    body = NarrowResNet(block, layers, norm_layer, width)
    if stride_in_1x1:
        for module in body.modules():
            if isinstance(module, resnet.Bottleneck) and module.conv2.stride == (2, 2):
                module.conv1.stride, module.conv2.stride = (2, 2), (1, 1)
    channels = [int(64 * width) * block.expansion * 2**i for i in range(4)]
    backbone = BackboneWithFPN(body, {f"layer{i + 1}": str(i) for i in range(4)}, channels, fpn)
    model = FasterRCNN(
        backbone,
        rpn_anchor_generator=AnchorGenerator(tuple((s,) for s in ANCHORS), (RATIOS,) * 5),
        rpn_pre_nms_top_n_train=PRE_NMS["training"],
        rpn_pre_nms_top_n_test=PRE_NMS["testing"],
        rpn_post_nms_top_n_train=POST_NMS["training"],
        rpn_post_nms_top_n_test=POST_NMS["testing"],
        rpn_batch_size_per_image=48,
        box_roi_pool=MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 2, canonical_scale=56),
        box_head=TwoMLPHead(fpn * 49, hidden),
        box_predictor=FastRCNNPredictor(hidden, CLASSES),
        box_batch_size_per_image=32,
        box_detections_per_img=DETECTIONS,
        image_mean=MEAN,
        image_std=STD,
    )
    model.rpn.fg_bg_sampler = EvenSampler(48, 0.5)
    model.roi_heads.fg_bg_sampler = EvenSampler(32, 0.25)
    state = model.state_dict()
    for name, value in state.items():
        if not name.endswith("num_batches_tracked"):
            state[name] = parameter(seed, name, value.shape, gain(name))
    model = model.double()
    model.load_state_dict(state)
    model.rpn.assign_targets_to_anchors = wide_labels(model.rpn.assign_targets_to_anchors)
    return model


def level_classes(model: FasterRCNN, logits: torch.Tensor) -> torch.Tensor:
    """Sets the class bias so that no class wins everywhere: minus the mean of `logits`, one row a RoI. It is stored."""
    bias = model.roi_heads.box_predictor.cls_score.bias
    bias.data = (bias.data - logits.mean(0)).float().double()
    return bias.detach().clone()


def wide_labels(assign):
    """torchvision makes the anchor labels float32 whatever the run's type, which would make the loss float32 too."""

    def assigned(anchors, truth):
        labels, boxes = assign(anchors, truth)
        return [label.to(anchors[0].dtype) for label in labels], [box.to(anchors[0].dtype) for box in boxes]

    return assigned


class EvenSampler:
    """In the place of the random choice: evenly spaced members of the list of positives, and of negatives."""

    def __init__(self, size: int, fraction: float):
        self.size, self.fraction = size, fraction

    def __call__(self, labels):
        masks = [], []
        for label in labels:
            positive, negative = torch.where(label >= 1)[0], torch.where(label == 0)[0]
            n = min(len(positive), int(self.size * self.fraction))
            for out, index, count in [(masks[0], positive, n), (masks[1], negative, min(len(negative), self.size - n))]:
                mask = torch.zeros_like(label, dtype=torch.uint8)
                mask[index[[i * len(index) // count for i in range(count)]]] = 1
                out.append(mask)
        return masks


def batch(model: FasterRCNN, seed: str, dtype) -> ImageList:
    pictures = [model.transform.normalize(image(f"{seed}/image{i}", h, w).to(dtype)) for i, (h, w) in enumerate(SIZES)]
    return ImageList(model.transform.batch_images(pictures), SIZES)


def targets(dtype, empty_second=False, more=None):
    """TRUTH and `more`, each image's further boxes."""
    truth = [dict(boxes=torch.tensor(t["boxes"]), labels=torch.tensor(t["labels"])) for t in TRUTH]
    if more:
        truth = [dict(boxes=torch.cat([t["boxes"], m]), labels=torch.cat([t["labels"], torch.tensor([4, 8])])) for t, m in zip(truth, more)]
    if empty_second:
        truth[1] = dict(boxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.int64))
    return [dict(boxes=t["boxes"].float().to(dtype), labels=t["labels"]) for t in truth]


def more_truth(model: FasterRCNN, seed: str):
    """Two boxes an image, a little beside the largest and a middling proposal of a training step: so that some RoIs
    match a truth without being it, and the box loss has something to regress."""
    state = {name: value.clone() for name, value in model.state_dict().items()}
    more = []
    for boxes in training(model, seed, torch.float64, targets(torch.float64))["proposals"]:
        order = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).argsort(descending=True)
        near = boxes[order[[0, len(order) // 3]]]
        sides = (near[:, 2:] - near[:, :2]).repeat(1, 2)
        more.append((near + sides * torch.tensor([0.11, 0.03, -0.02, -0.09])).float())
    model.load_state_dict(state)  # the running statistics have moved
    return more


def pyramid(model: FasterRCNN, pixels):
    return model.backbone.body(pixels), model.backbone(pixels)


def inference(model: FasterRCNN, seed: str, dtype) -> dict:
    """Every stage's output, one after the other."""
    model = model.to(dtype).eval()
    with torch.no_grad():
        images = batch(model, seed, dtype)
        stages, features = pyramid(model, images.tensors)
        logits, deltas = model.rpn.head(list(features.values()))
        anchors = model.rpn.anchor_generator(images, list(features.values()))[0]
        proposals, scores = proposals_with_scores(model, logits, deltas, anchors, images)
        pooled = model.roi_heads.box_roi_pool(features, proposals, SIZES)
        head = model.roi_heads.box_predictor(model.roi_heads.box_head(pooled))
        boxes, probabilities, labels = model.roi_heads.postprocess_detections(*head, proposals, SIZES)
        model.roi_heads.score_thresh, model.roi_heads.detections_per_img = STRICT, 100
        strict = model.roi_heads.postprocess_detections(*head, proposals, SIZES)
        model.roi_heads.score_thresh, model.roi_heads.detections_per_img = 0.05, DETECTIONS
    return dict(stages=stages, features=features, strict=strict, logits=logits, deltas=deltas, anchors=anchors, proposals=proposals, scores=scores,
                head=head, boxes=boxes, probabilities=probabilities, labels=labels)  # fmt: skip


def proposals_with_scores(model, logits, deltas, anchors, images):
    """RegionProposalNetwork.forward, which keeps the scores to itself."""
    counts = [level[0].numel() for level in logits]
    flat_logits, flat_deltas = concat_box_prediction_layers(logits, deltas)
    decoded = model.rpn.box_coder.decode(flat_deltas, [anchors] * len(SIZES)).view(len(SIZES), -1, 4)
    return model.rpn.filter_proposals(decoded, flat_logits, images.image_sizes, counts)


def training(model: FasterRCNN, seed: str, dtype, truth: list, given=None) -> dict:
    """Four losses, each parameter's gradient of their sum, the RoIs taken, and the buffers after the step. `given`
    stands in the place of the RPN's proposals."""
    model = model.to(dtype).train()
    model.zero_grad(set_to_none=True)
    seen = {}
    select, predict = model.roi_heads.select_training_samples, model.roi_heads.box_predictor.forward

    def selecting(proposals, truth):
        out = select(proposals, truth)
        seen["rois"], seen["roi_labels"] = out[0], out[2]
        return out

    def predicting(x):
        seen["head"] = predict(x)
        return seen["head"]

    model.roi_heads.select_training_samples, model.roi_heads.box_predictor.forward = selecting, predicting
    images = batch(model, seed, dtype)
    features = model.backbone(images.tensors)
    proposals, losses = model.rpn(images, features, truth)
    proposals = proposals if given is None else [p.to(dtype) for p in given]
    _, more = model.roi_heads(features, proposals, SIZES, truth)
    del model.roi_heads.select_training_samples, model.roi_heads.box_predictor.forward
    losses = {**losses, **more}
    sum(losses.values()).backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    buffers = {name: b.clone() for name, b in model.named_buffers() if "running" in name or "tracked" in name}
    return dict(seen, targets=truth, proposals=proposals, losses={k: v.detach() for k, v in losses.items()}, gradients=gradients, buffers=buffers)


def add_features(golden: Golden, case: str, a: dict, b: dict):
    for i, (x, y) in enumerate(zip(a["stages"].values(), b["stages"].values())):
        golden.summary(f"{case}.c{i + 2}", x, y, SCORES)
    for i, (x, y) in enumerate(zip(a["features"].values(), b["features"].values())):
        golden.summary(f"{case}.p{i + 2}", x, y, SCORES)


def add_detections(golden: Golden, case: str, a, b):
    """(boxes, scores, labels), each a list over the images."""
    for i in range(len(SIZES)):
        assert a[2][i].tolist() == b[2][i].tolist(), f"{case}: float32 gives other labels"
        golden.add(f"{case}{i}.boxes", a[0][i], b[0][i], PIXELS, "abs")
        golden.add(f"{case}{i}.scores", a[1][i], b[1][i], SCORES, "abs")
        golden.exact(f"{case}{i}.labels", a[2][i])


def add_inference(golden: Golden, case: str, a: dict, b: dict):
    add_features(golden, case, a, b)
    for i in range(len(a["logits"])):
        golden.summary(f"{case}.objectness{i}", a["logits"][i], b["logits"][i], SCORES, 64)
        golden.summary(f"{case}.deltas{i}", a["deltas"][i], b["deltas"][i], SCORES, 64)
    golden.exact(f"{case}.anchors_each", [3 * x.shape[2] * x.shape[3] for x in a["logits"]])
    golden.exact(f"{case}.anchors", a["anchors"][torch.from_numpy(pick(f"{case}.anchors", len(a["anchors"]), 200))])
    golden.summary(f"{case}.class_logits", a["head"][0], b["head"][0], SCORES, 128)
    golden.summary(f"{case}.box_deltas", a["head"][1], b["head"][1], SCORES, 128)
    for i in range(len(SIZES)):
        golden.add(f"{case}.proposals{i}.boxes", a["proposals"][i], b["proposals"][i], PIXELS, "abs")
        golden.add(f"{case}.proposals{i}.scores", a["scores"][i], b["scores"][i], SCORES, "abs")
    add_detections(golden, f"{case}.detections", *[(x["boxes"], x["probabilities"], x["labels"]) for x in (a, b)])
    labels = torch.cat(a["labels"])
    assert len(labels) >= 50 and len(labels.unique()) == CLASSES - 1, f"{case}: {labels.bincount().tolist()} detections by class"


def add_training(golden: Golden, case: str, a: dict, b: dict, entries=16):
    """`entries` of each gradient; None for all."""
    for i, truth in enumerate(a["targets"]):
        golden.exact(f"{case}.truth{i}.boxes", truth["boxes"])
        golden.exact(f"{case}.truth{i}.labels", truth["labels"])
    for name, loss in a["losses"].items():
        golden.add(f"{case}.{name}", loss, b["losses"][name], LOSS)
    for i in range(len(SIZES)):
        golden.add(f"{case}.rois{i}", a["rois"][i], b["rois"][i], PIXELS, "abs")
        assert a["roi_labels"][i].tolist() == b["roi_labels"][i].tolist(), f"{case}: float32 samples other RoIs"
        golden.exact(f"{case}.roi_labels{i}", a["roi_labels"][i])
    # Truths are among the RoIs, with nothing to regress; the box loss needs others.
    moved = sum(int(((x[:, None] - t["boxes"]).abs().amax(2) > 1).all(1)[y > 0].sum()) for x, y, t in zip(a["rois"], a["roi_labels"], a["targets"]) if len(t["boxes"]))
    assert moved >= 3, f"{case}: {moved} positive RoIs besides the truths"
    golden.summary(f"{case}.class_logits", a["head"][0], b["head"][0], SCORES, 64)
    golden.summary(f"{case}.box_deltas", a["head"][1], b["head"][1], SCORES, 64)
    for name, gradient in a["gradients"].items():
        if entries is None:
            golden.add(f"{case}.grad.{name}", gradient, b["gradients"][name], GRADIENT)
        else:
            golden.summary(f"{case}.grad.{name}", gradient, b["gradients"][name], GRADIENT, entries)
    for name, buffer in a["buffers"].items():
        if name.endswith("tracked"):
            golden.exact(f"{case}.buffer.{name}", buffer)
        else:
            golden.summary(f"{case}.buffer.{name}", buffer, b["buffers"][name], GRADIENT, 8)


def run(case: dict, dtype) -> dict:
    """The parts of one case, in their order; the margins of each."""
    model = build(case["seed"], case["depth"], case["norm"], case.get("stride_in_1x1", False))
    bias = level_classes(model, inference(model, case["seed"], torch.float64)["head"][0])
    out = {"cls_bias": bias, "faults": []}
    more = more_truth(model, case["seed"]) if "training" in case["parts"] else None
    for part in case["parts"]:
        if part == "strict":
            continue  # comes with inference
        with watched(model) as margins:
            if part == "training":
                out[part] = training(model, case["seed"], dtype, targets(dtype, case.get("empty_second", False), more))
            else:
                out[part] = inference(model, case["seed"], dtype)
        # The features have no thresholds.
        out["faults"] += [] if part == "features" else [f"{part}: {fault}" for fault in margins.faults()]
    return out


def goldens() -> Golden:
    golden = Golden()
    golden.note("gains", GAINS)
    for name, case in CASES.items():
        a, b = run(case, torch.float64), run(case, torch.float32)
        assert not a["faults"], f"{name}: too close with seed {case['seed']}, take the next: {a['faults']}"
        golden.note(f"seed {name}", case["seed"])
        golden.exact(f"{name}.cls_bias", a["cls_bias"])
        if "inference" in a:
            add_inference(golden, f"{name}.eval", a["inference"], b["inference"])
        if "strict" in case["parts"]:
            add_detections(golden, f"{name}.strict", a["inference"]["strict"], b["inference"]["strict"])
        if "training" in a:
            add_training(golden, f"{name}.train", a["training"], b["training"])
        if "features" in a:
            add_features(golden, f"{name}.eval", a["features"], b["features"])
    return golden
