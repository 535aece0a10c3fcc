"""Training steps of torchvision's Faster R-CNN, alone and distilled, as docent's benches do them.

The batch is crates/study/benches/common/mod.rs's: images with a soft pattern, twelve boxes each.
"""

import time

import torch
import torchvision
from torch.nn import functional as F
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.roi_heads import fastrcnn_loss
from torchvision.ops import FrozenBatchNorm2d, box_iou, clip_boxes_to_image

CLASSES = 4
SIZES = (16, 32, 64, 128, 256)


def model(depth, channels, hidden, samples, pre_nms, post_nms, size, frozen_norm=False):
    norm = FrozenBatchNorm2d if frozen_norm else torch.nn.BatchNorm2d
    body = getattr(torchvision.models, f"resnet{depth}")(weights=None, norm_layer=norm)
    width = 64 if depth == 18 else 256
    backbone = BackboneWithFPN(
        body, {f"layer{i + 1}": str(i) for i in range(4)}, [width << i for i in range(4)], channels
    )
    return FasterRCNN(
        backbone,
        min_size=min(size),
        max_size=max(size),
        rpn_anchor_generator=AnchorGenerator(tuple((s,) for s in SIZES), ((0.5, 1.0, 2.0),) * 5),
        rpn_pre_nms_top_n_train=pre_nms,
        rpn_post_nms_top_n_train=post_nms,
        rpn_pre_nms_top_n_test=1000,
        rpn_post_nms_top_n_test=1000,
        box_head=TwoMLPHead(channels * 49, hidden),
        box_predictor=FastRCNNPredictor(hidden, CLASSES),
        box_batch_size_per_image=samples,
    )


def r50():
    return model(50, 256, 1024, 512, 2000, 2000, (320, 320))


def r18():
    return model(18, 64, 256, 64, 1000, 500, (240, 320))


def batch(images, height, width):
    """Pixels in 0..1 and targets; the boxes are docent's."""
    pixels, targets = [], []
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    for n in range(images):
        planes = [0.6 + 0.1 * torch.sin(x * 0.07 + n) * torch.cos(y * 0.05 + c) for c in range(3)]
        boxes, labels = [], []
        for i in range(12):
            w, h = (24.0 + 6 * ((7 * i + 5 * n + k) % 9) for k in (0, 4))
            cx, cy = i % 4 * 80 + 40, i // 4 * 80 + 40
            boxes.append([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2])
            labels.append((i + n) % 3 + 1)
            inside = ((x - cx) / (w / 2)) ** 2 + ((y - cy) / (h / 2)) ** 2 < 1
            for c in range(3):
                planes[c][inside] = 0.9 if labels[-1] == c + 1 else 0.25
        pixels.append(torch.stack(planes))
        targets.append({"boxes": torch.tensor(boxes), "labels": torch.tensor(labels)})
    return pixels, targets


class Step:
    """Forward, backward, clipping, update; `shares` are the seconds of the last one's parts."""

    def __init__(self, kind):
        self.model = (r50() if kind == "r50" else r18()).train()
        self.images, self.targets = batch(2, 320, 320) if kind == "r50" else batch(4, 240, 320)
        params = list(self.model.parameters())
        self.groups = [params]
        self.teacher = None
        if kind == "distill":
            self.teacher = model(50, 64, 256, 64, 1000, 500, (240, 320), frozen_norm=True).eval()
            self.teacher.requires_grad_(False)
            self.adapters = torch.nn.ModuleList(torch.nn.Conv2d(64, 64, 3, padding=1) for _ in range(5))
            self.groups.append(list(self.adapters.parameters()))
        self.sgd = [torch.optim.SGD(g, lr=0.0, momentum=0.9, weight_decay=1e-4) for g in self.groups]
        self.shares = (0, 0, 0)

    def call(self):
        start = time.perf_counter()
        loss = self.distilled() if self.teacher else sum(self.model(self.images, self.targets).values())
        loss.item()
        forward = time.perf_counter() - start
        loss.backward()
        backward = time.perf_counter() - start - forward
        for group, sgd in zip(self.groups, self.sgd):
            torch.nn.utils.clip_grad_norm_(group, 10.0)
            sgd.step()
            # As docent's gradients: none outlives its step.
            sgd.zero_grad(set_to_none=True)
        self.shares = (forward, backward, time.perf_counter() - start - forward - backward)

    def distilled(self):
        """docs/method.md with its defaults: masked features, gated head terms, decay 1."""
        student, teacher = self.model, self.teacher
        images, targets = student.transform(self.images, self.targets)
        features = student.backbone(images.tensors)
        proposals, losses = student.rpn(images, features, targets)
        heads = student.roi_heads
        proposals, matched, labels, deltas = heads.select_training_samples(proposals, targets)
        logits, boxes = heads.box_predictor(heads.box_head(heads.box_roi_pool(features, proposals, images.image_sizes)))
        class_loss, box_loss = fastrcnn_loss(logits, boxes, labels, deltas)

        with torch.no_grad():
            t_features = teacher.backbone(images.tensors)
            t_heads = teacher.roi_heads
            pooled = t_heads.box_roi_pool(t_features, proposals, images.image_sizes)
            t_logits, t_boxes = t_heads.box_predictor(t_heads.box_head(pooled))

        feature_loss = 0
        for adapter, s, t in zip(self.adapters, features.values(), t_features.values()):
            mask = gaussian(targets, images.tensors.shape[-2:], s.shape[-2:])
            difference = (adapter(s) - t) ** 2 * mask[:, None]
            feature_loss = feature_loss + difference.sum() / (2 * mask.sum().clamp(min=1e-6))

        label, rois = torch.cat(labels), torch.cat(proposals)
        truth = torch.cat([t["boxes"][m] for t, m in zip(targets, matched)])
        positive = (label > 0).nonzero().squeeze(1)
        n = max(1, len(positive))
        p_s, p_t = (x[positive].softmax(1).clamp(1e-6, 1 - 1e-6) for x in (logits, t_logits))
        class_term = F.binary_cross_entropy(p_s, p_t, reduction="sum") / n

        column = lambda x: x.view(-1, CLASSES, 4)[positive, label[positive]]
        own, taught = column(boxes), column(t_boxes)
        with torch.no_grad():
            refined = heads.box_coder.decode_single(taught, rois[positive]).reshape(-1, 4)
            refined = clip_boxes_to_image(refined, images.tensors.shape[-2:])
            iou = lambda a: box_iou(a, truth[positive]).diagonal()
            gate = (iou(refined) > iou(rois[positive])).float()
        box_term = (F.smooth_l1_loss(own, taught, reduction="none").sum(1) * gate).sum() / gate.sum().clamp(min=1)
        own_loss = sum(losses.values()) + class_loss + box_loss
        return own_loss + 0.01 * feature_loss + 0.25 * class_term + 0.25 * box_term


def gaussian(targets, image, grid):
    """For each image the maximum of its boxes' Gaussians at the cells' centres, 0 outside boxes."""
    height, width = grid
    y = (torch.arange(height) + 0.5) * image[0] / height
    x = (torch.arange(width) + 0.5) * image[1] / width
    masks = []
    for t in targets:
        x0, y0, x1, y1 = (v[:, None, None] for v in t["boxes"].unbind(1))
        dx, dy = (x[None, None] - (x0 + x1) / 2) / ((x1 - x0) / 2), (y[None, :, None] - (y0 + y1) / 2) / ((y1 - y0) / 2)
        inside = (dx.abs() <= 1) & (dy.abs() <= 1)
        masks.append((torch.exp(-(dx**2 + dy**2) / 2) * inside).amax(0))
    return torch.stack(masks)
