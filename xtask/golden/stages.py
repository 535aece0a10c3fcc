"""Goldens of docent-detect's stages one by one: anchors, matcher, sampling, proposals and detections with tied scores,
the level of a region. Each is torchvision's own code on given inputs."""

import torch
from torch import nn
from torchvision import ops as tv
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, concat_box_prediction_layers
from torchvision.ops.poolers import LevelMapper

from common import OPS, SCORES, Golden, both, fill, pick
from margins import THRESHOLD
from model import EvenSampler
from ops import make_boxes

# An image's padded size, and its levels; the last one's stride is no power of two: 160 / 3.
PADDED, GRIDS = (96, 160), [(24, 40), (12, 20), (6, 10), (3, 5), (2, 3)]
SIZES = [(90, 151), (77, 160)]
ANCHORS = {
    "default": dict(sizes=[32, 64, 128, 256, 512], ratios=[0.5, 1.0, 2.0]),
    # 33 and 17 have corners at halves, which round to the even pixel.
    "odd": dict(sizes=[17, 33, 50, 101, 203], ratios=[0.4, 1.0, 2.5, 3.0]),
    "small": dict(sizes=[8, 16, 32, 64, 128], ratios=[0.5, 1.0, 2.0]),
}
CLASSES = 6
HEAD = (10.0, 10.0, 5.0, 5.0)
TRUTHS = [
    # Wholly on the grid, so that anchors tie; overlapping; thin, so that its best anchor is a poor one; in a corner.
    [[16, 16, 48, 48], [40, 20, 100, 80], [60, 30, 110, 90], [10, 70, 120, 74], [130, 60, 151, 90]],
    [[8.5, 6.25, 21.75, 30.5], [64, 32, 128, 69], [70.5, 8.25, 159.25, 70.75]],
]
FAR = [400.0, 400.0, 430.0, 440.0]  # overlaps no anchor


def anchors(name: str, dtype) -> list[torch.Tensor]:
    """Each level's anchors."""
    p = ANCHORS[name]
    generator = AnchorGenerator(tuple((s,) for s in p["sizes"]), (tuple(p["ratios"]),) * 5)
    maps = [torch.zeros(1, 1, *grid, dtype=dtype) for grid in GRIDS]
    every = generator(ImageList(torch.zeros(1, 3, *PADDED, dtype=dtype), [PADDED]), maps)[0]
    return list(every.split([h * w * len(p["ratios"]) for h, w in GRIDS]))


def add_anchors(golden: Golden):
    for name, p in ANCHORS.items():
        golden.note(f"case anchors.{name}", p)
        levels = anchors(name, torch.float64)
        for a, b in zip(levels, anchors(name, torch.float32)):
            assert torch.equal(a, b.double()), "anchors are whole pixels in any type"
        for i, level in enumerate(levels):
            golden.exact(f"anchors.{name}.{i}", level[torch.from_numpy(pick(f"anchors.{name}.{i}", len(level), 40))])


def add_matcher(golden: Golden):
    """Index and match of each anchor that is not background; -2 stands for ignored."""
    boxes = torch.cat(anchors("small", torch.float64))
    for i, truth in enumerate(TRUTHS):
        truth = torch.tensor(truth).double()
        golden.exact(f"matcher.truth{i}", truth)
        for name, high, low, claims in [("rpn", 0.7, 0.3, True), ("plain", 0.7, 0.3, False), ("head", 0.5, 0.5, False)]:
            matcher = Matcher(high, low, allow_low_quality_matches=claims)

            def compute(dtype):
                quality = tv.box_iou(truth.to(dtype), boxes.to(dtype))
                for threshold in (high, low):
                    assert (quality.max(0).values - threshold).abs().min() > THRESHOLD, f"{name}{i}: an IoU is at {threshold}"
                return matcher(quality)

            a, b = both(compute)
            assert torch.equal(a, b), f"{name}{i}: float32 matches otherwise"
            at = torch.where(a != -1)[0]
            golden.exact(f"matcher.{name}{i}", torch.stack([at, a[at]], 1))
        far = Matcher(0.7, 0.3, allow_low_quality_matches=True)(tv.box_iou(torch.cat([truth, torch.tensor([FAR]).double()]), boxes))
        assert (far >= 0).all(), "torchvision lets a truth that overlaps nothing claim every anchor"
    rpn, plain = ((golden.values[f"matcher.{name}0"][:, 1] >= 0).sum() for name in ("rpn", "plain"))
    assert rpn >= plain + 4, "low-quality matches decide nothing"
    golden.exact("matcher.far", torch.tensor(FAR).double())


def heads(samples=16) -> RoIHeads:
    heads = RoIHeads(None, None, None, 0.5, 0.5, samples, 0.25, HEAD, 0.05, 0.5, 30)
    heads.fg_bg_sampler = EvenSampler(samples, 0.25)
    return heads


def near_truths(name: str, truth: torch.Tensor, height: int, width: int, n: int) -> torch.Tensor:
    """Boxes that stand for proposals: most a truth moved a little, the rest anywhere; in the image, float32 values."""
    near = truth.repeat(-(-n // len(truth)), 1)[:n] if len(truth) else torch.zeros(0, 4, dtype=torch.float64)
    sides = (near[:, 2:] - near[:, :2]).repeat(1, 2)
    near = near + fill(f"{name}.jitter", near.shape, 0.22) * sides
    far = make_boxes(f"{name}.far", n // 2, height, width, min(height, width) / 2)
    return tv.clip_boxes_to_image(torch.cat([near, far]), (height, width)).float().double()


def add_sampling(golden: Golden):
    """Truths added, assigned, sampled, encoded; the third image has no truth."""
    truths = [torch.tensor(t).double() for t in TRUTHS] + [torch.zeros(0, 4).double()]
    labels = [torch.arange(len(t)) % (CLASSES - 1) + 1 for t in truths]
    proposals = [near_truths(f"sampling{i}", t, *PADDED, 12) for i, t in enumerate(truths)]
    proposals[2] = make_boxes("sampling2", 20, *PADDED, 60)
    for i, (t, l, p) in enumerate(zip(truths, labels, proposals)):
        golden.exact(f"sampling.truth{i}", t)
        golden.exact(f"sampling.labels{i}", l)
        golden.exact(f"sampling.proposals{i}", p)
        best = tv.box_iou(t, p).amax(0) if len(t) else torch.zeros(1)
        assert (best - 0.5).abs().min() > THRESHOLD

    def compute(dtype):
        targets = [dict(boxes=t.to(dtype), labels=l) for t, l in zip(truths, labels)]
        return heads().select_training_samples([p.to(dtype) for p in proposals], targets)

    (boxes, _, classes, deltas), (boxes32, _, classes32, deltas32) = both(compute)
    for i in range(len(truths)):
        assert torch.equal(classes[i], classes32[i])
        golden.exact(f"sampling.rois{i}", boxes[i])
        golden.exact(f"sampling.classes{i}", classes[i])
        positive = classes[i] > 0
        golden.add(f"sampling.targets{i}", deltas[i][positive], deltas32[i][positive], OPS)
        assert bool(positive.any()) == (i < 2)


def clear_of(threshold: float, boxes, groups):
    """Asserts that no IoU within a group lies at the threshold."""
    same = torch.triu(groups[:, None] == groups[None, :], diagonal=1)
    margin = (tv.box_iou(boxes, boxes)[same] - threshold).abs().min().item()
    assert margin > THRESHOLD, f"an IoU lies {margin} from {threshold}"


def stable_top(rpn):
    """torchvision's `_get_top_n_idx`, but among equal logits the lower index first: `topk` leaves that open."""

    def top(objectness, counts):
        out, start = [], 0
        for logits in objectness.split(counts, 1):
            order = logits.sort(dim=1, descending=True, stable=True).indices
            out.append(order[:, : rpn.pre_nms_top_n()] + start)
            start += logits.shape[1]
        return torch.cat(out, 1)

    return top


def add_ties(golden: Golden):
    """Proposals and detections of which many have equal scores."""
    tops = dict(training=80, testing=80), dict(training=50, testing=50)
    rpn = RegionProposalNetwork(None, nn.Identity(), 0.7, 0.3, 256, 0.5, *tops, 0.7).eval()
    rpn._get_top_n_idx = stable_top(rpn)
    clipped = []
    nms = tv.boxes.batched_nms

    def seen(boxes, scores, groups, threshold):
        if boxes.dtype == torch.float64:
            clear_of(threshold, boxes, groups)
            clipped.append((len(scores), len(scores.unique())))
        return nms(boxes, scores, groups, threshold)

    def propose(dtype):
        logits = [(fill(f"ties.objectness{i}", [2, 3, *grid], 2.0) * 4).round().div(4).to(dtype) for i, grid in enumerate(GRIDS)]
        deltas = [fill(f"ties.deltas{i}", [2, 12, *grid], 0.4).to(dtype) for i, grid in enumerate(GRIDS)]
        counts = [3 * h * w for h, w in GRIDS]
        every = torch.cat(anchors("small", dtype))
        flat_logits, flat_deltas = concat_box_prediction_layers(logits, deltas)
        decoded = rpn.box_coder.decode(flat_deltas, [every] * 2).view(2, -1, 4)
        return rpn.filter_proposals(decoded, flat_logits, SIZES, counts)

    regions = [make_boxes(f"ties.regions{i}", 25, *size, 60) for i, size in enumerate(SIZES)]
    regions = [tv.clip_boxes_to_image(r, size) for r, size in zip(regions, SIZES)]

    def detect(dtype):
        # Ties within a row, and between rows that are the same; no row is another one's permutation.
        logits = fill("ties.class_logits", [50, CLASSES], 2.0)
        logits[:, 2] = logits[:, 4]
        logits[10:20], logits[35:45] = logits[:10], logits[25:35]
        return heads().postprocess_detections(logits.to(dtype), fill("ties.box_deltas", [50, 4 * CLASSES], 1.5).to(dtype), [r.to(dtype) for r in regions], SIZES)

    tv.boxes.batched_nms = seen
    try:
        (boxes, scores), (boxes32, scores32) = both(propose)
        a, b = both(detect)
    finally:
        tv.boxes.batched_nms = nms
    assert all(distinct < n / 2 for n, distinct in clipped[:2]) and all(distinct < n for n, distinct in clipped[2:]), f"ties are missing: {clipped}"
    for i in range(2):
        golden.add(f"ties.proposals{i}.boxes", boxes[i], boxes32[i], OPS)
        golden.add(f"ties.proposals{i}.scores", scores[i], scores32[i], OPS)
        golden.exact(f"ties.regions{i}", regions[i])
        assert torch.equal(a[2][i], b[2][i]), "float32 orders the detections otherwise"
        golden.add(f"ties.detections{i}.boxes", a[0][i], b[0][i], OPS)
        golden.add(f"ties.detections{i}.scores", a[1][i], b[1][i], SCORES, "abs")
        golden.exact(f"ties.detections{i}.labels", a[2][i])


def add_levels(golden: Golden):
    """Regions at the borders between levels, some within the guard of 1e-6 and some just outside, and others."""
    for scale in (224, 56):
        offsets = [-1e-2, -4e-6, -2e-6, -5e-7, -3e-7, 0.0, 3e-7, 4e-6, 1e-2]
        sides = torch.tensor([scale * 2.0**k * (1 + d) for k in (-1, 0, 1) for d in offsets]).float()
        square = torch.stack([sides * 0, sides * 0, sides, sides], 1)
        flat = torch.stack([sides * 0, sides * 0, sides * 2, sides / 2], 1)  # the same areas
        other = make_boxes(f"levels{scale}", 60, 600, 800, scale * 3.0).float()
        boxes = torch.cat([square, flat, other]).double()
        golden.exact(f"levels.{scale}.boxes", boxes)
        mapper = LevelMapper(2, 5, scale, 4, 1e-6)
        a, b = both(lambda dtype: mapper([boxes.to(dtype)]))
        assert torch.equal(a, b), f"float32 gives other levels: {(a != b).nonzero().ravel().tolist()}"
        bare = LevelMapper(2, 5, scale, 4, 0.0)([boxes])
        assert (a != bare).sum() >= 6, "the guard decides nothing"
        golden.exact(f"levels.{scale}", a)


def goldens() -> Golden:
    golden = Golden()
    add_anchors(golden)
    add_matcher(golden)
    add_sampling(golden)
    add_ties(golden)
    add_levels(golden)
    return golden
