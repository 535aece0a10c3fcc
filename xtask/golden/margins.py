"""How close a run comes to a decision that float32 could take otherwise.

While `watched(model)` is active, torchvision's own functions report the smallest distance of each compared number to
its threshold. The generator asserts these distances, so that every implementation must select the same boxes.
"""

from contextlib import contextmanager

import torch
from torchvision.models.detection import _utils
from torchvision.ops import boxes as box_ops
from torchvision.ops import poolers

THRESHOLD = 1e-5  # of scores and IoUs to a threshold
ORDER = 4e-6  # between neighbours in an order by score; float32 scores are right to about 3e-7


class Margins(dict):
    """Smallest distance seen, by kind."""

    def see(self, kind: str, distances: torch.Tensor):
        if distances.numel():
            self[kind] = min(self.get(kind, float("inf")), distances.min().item())

    def faults(self) -> list[str]:
        """The kinds that come too close."""
        limit = lambda kind: ORDER if kind.startswith("order") else THRESHOLD
        return [f"{kind} {margin:.2e}" for kind, margin in self.items() if margin <= limit(kind)]


batched_nms = box_ops.batched_nms


def suppression(margins: Margins, boxes, scores, classes, threshold, cut):
    """Each IoU in one class against the threshold; the order of two boxes of which one suppresses the other; the kept order."""
    iou = box_ops.box_iou(boxes, boxes)
    same = torch.triu(classes[:, None] == classes[None, :], diagonal=1)
    margins.see("iou to nms", (iou[same] - threshold).abs())
    gap = (scores[:, None] - scores[None, :]).abs()
    margins.see("order of suppression", gap[same & (iou > threshold)])
    keep = batched_nms(boxes, scores, classes, threshold)
    kept = scores[keep[: cut + 1]]
    margins.see("order of kept", kept[:-1] - kept[1:])


@contextmanager
def watched(model):
    """Gives a `Margins` that the model's forward fills."""
    margins = Margins()
    nms, small = box_ops.batched_nms, box_ops.remove_small_boxes
    match, level = _utils.Matcher.__call__, poolers.LevelMapper.__call__
    top, post = model.rpn._get_top_n_idx, model.roi_heads.postprocess_detections
    cut = {model.rpn.nms_thresh: model.rpn.post_nms_top_n, model.roi_heads.nms_thresh: lambda: model.roi_heads.detections_per_img}

    def watched_nms(boxes, scores, classes, threshold):
        suppression(margins, boxes, scores, classes, threshold, cut[threshold]())
        return nms(boxes, scores, classes, threshold)

    def watched_small(boxes, min_size):
        sides = torch.cat([boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]])
        margins.see("side to min_size", (sides - min_size).abs())
        return small(boxes, min_size)

    def watched_match(self, quality):
        best, _ = quality.max(0)
        for threshold in (self.high_threshold, self.low_threshold):
            margins.see("iou to matcher", (best - threshold).abs())
        if self.allow_low_quality_matches:
            # Anchors that tie exactly with the best of a truth are kept with it; the next one must be clearly worse.
            gap = quality.max(1, keepdim=True).values - quality
            margins.see("order of best anchors", gap[gap > 0])
        if quality.shape[0] > 1:
            two = quality[:, best >= self.low_threshold].topk(2, dim=0).values
            margins.see("order of best truths", two[0] - two[1])
        return match(self, quality)

    def watched_level(self, boxes):
        side = torch.cat([box_ops.box_area(b) for b in boxes]).sqrt()
        value = self.lvl0 + torch.log2(side / self.s0) + self.eps
        inside = (value > self.k_min + 0.5) & (value < self.k_max + 0.5)
        margins.see("side to level", (value - value.round()).abs()[inside])
        return level(self, boxes)

    def watched_top(objectness, counts):
        for logits in objectness.split(counts, 1):
            k = min(model.rpn.pre_nms_top_n(), logits.shape[1])
            if k < logits.shape[1]:
                ordered = logits.sort(1, descending=True).values
                margins.see("order at pre_nms", ordered[:, k - 1] - ordered[:, k])
        return top(objectness, counts)

    def watched_post(logits, *rest):
        margins.see("score to threshold", (logits.softmax(-1)[:, 1:] - model.roi_heads.score_thresh).abs())
        return post(logits, *rest)

    box_ops.batched_nms, box_ops.remove_small_boxes = watched_nms, watched_small
    _utils.Matcher.__call__, poolers.LevelMapper.__call__ = watched_match, watched_level
    model.rpn._get_top_n_idx, model.roi_heads.postprocess_detections = watched_top, watched_post
    try:
        yield margins
    finally:
        box_ops.batched_nms, box_ops.remove_small_boxes = nms, small
        _utils.Matcher.__call__, poolers.LevelMapper.__call__ = match, level
        del model.rpn._get_top_n_idx, model.roi_heads.postprocess_detections
