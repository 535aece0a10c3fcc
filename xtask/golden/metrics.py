"""Goldens of docent-coco's metrics: small cases and pycocotools' figures for them, as JSON."""

import contextlib
import io
import json
from pathlib import Path

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from common import Report, unit

TOLERANCE = 1e-12  # pycocotools works in float64
NO_TRUTH = -1.0


class Draw:
    """Numbers from the fill formula, one after the other."""

    def __init__(self, name: str):
        self.name, self.at = name, 0

    def between(self, low: float, high: float) -> float:
        self.at += 1
        return low + (high - low) * (float(unit(self.name, np.array([self.at]))[0]) + 1) / 2

    def box(self, side: float) -> list[float]:
        w, h = self.between(4, side), self.between(4, side)
        return [round(v, 2) for v in (self.between(0, 400 - w), self.between(0, 300 - h), w, h)]

    def near(self, box: list[float], share: float) -> list[float]:
        x, y, w, h = box
        move = lambda v, side: round(v + self.between(-share, share) * side, 2)
        return [move(x, w), move(y, h), max(1.0, move(w, w)), max(1.0, move(h, h))]

    def one_of(self, values):
        return values[min(int(self.between(0, len(values))), len(values) - 1)]


def truth(image: int, category: int, box, area=None, crowd=0) -> dict:
    return dict(image_id=image, category_id=category, bbox=box, area=round(box[2] * box[3], 6) if area is None else area, iscrowd=crowd)


def found(image: int, category: int, box, score: float) -> dict:
    return dict(image_id=image, category_id=category, bbox=box, score=score)


def scattered(name: str, images, categories, objects: int, finds: int, levels: int, side=150.0, crowds=False):
    """`objects` truths and `finds` detections, half of them near a truth; scores of `levels` different values."""
    draw = Draw(name)
    truths = [truth(draw.one_of(images), draw.one_of(categories), draw.box(side)) for _ in range(objects)]
    if crowds:
        for t in truths[::5]:
            t["iscrowd"] = 1
    score = lambda: round(int(draw.between(0, levels)) / levels, 6)
    detections = []
    for i in range(finds):
        t = draw.one_of(truths)
        category = t["category_id"] if draw.between(0, 1) < 0.9 else draw.one_of(categories)
        near = draw.near(t["bbox"], draw.one_of([0.03, 0.1, 0.25]))
        detections.append(found(t["image_id"], category, near, score()) if i % 2 else found(draw.one_of(images), category, draw.box(side), score()))
    return truths, detections


def cases() -> dict:
    """name: (image ids as the file lists them, category ids, truths, detections). Ids have gaps and no order."""
    three, five = [9, 2, 31], [40, 3, 17, 8, 25]
    out = {}
    out["more_than_100"] = (three, [1, 6], *scattered("more_than_100", three[:1], [1, 6], 40, 300, 100000))
    # The 100 that count are decided among equal scores, by the order of the list.
    out["more_than_100_tied"] = (three, [1], *scattered("more_than_100_tied", three[:1], [1], 30, 180, 3))
    out["ties"] = (five, [4, 2, 7], *scattered("ties", five, [4, 2, 7], 60, 240, 5))
    out["all_equal"] = (five, [4], *scattered("all_equal", five, [4], 30, 90, 1))
    out["crowds"] = (five, [4, 2], *scattered("crowds", five, [4, 2], 60, 240, 50, crowds=True))

    field, one = [50.0, 50.0, 200.0, 200.0], [100.0, 100.0, 40.0, 40.0]
    inside = [[60.0 + 25 * i, 70.0 + 20 * i, 20.0, 20.0] for i in range(6)]
    crowd_and_one = [truth(2, 1, one), truth(2, 1, field, crowd=1), truth(9, 1, field, crowd=1)]
    within = [found(2, 1, one, 0.7)] + [found(image, 1, box, 0.9 - 0.05 * i) for i, box in enumerate(inside) for image in (2, 9)]
    out["one_in_a_crowd"] = (three, [1], crowd_and_one, within + [found(2, 1, [102.0, 101.0, 40.0, 41.0], 0.8), found(31, 1, one, 0.4)])

    # At, just below and just above 32^2 and 96^2; the stated area decides for truths, the box for detections.
    sides = [(32.0, 32.0), (32.0, 31.99), (32.0, 32.01), (96.0, 96.0), (96.0, 95.99), (96.0, 96.01), (64.0, 16.0), (1.0, 1.0)]
    places = [[10.0 + 45 * (i % 4) if w < 90 else 5.0 + 3 * i, 20.0 + 100 * (i // 4), w, h] for i, (w, h) in enumerate(sides)]
    borders = [truth(1 + i, 1, box) for i, box in enumerate(places)] + [truth(9, 1, [10.0, 10.0, 50.0, 50.0], area=1024.0), truth(9, 1, [100.0, 100.0, 50.0, 50.0], area=9216.0)]
    beside = [found(1 + i, 1, [box[0] + 0.1 * box[2], *box[1:]], 0.9 - 0.05 * i) for i, box in enumerate(places)]
    lone = [found(10, 1, box, 0.95 - 0.04 * i) for i, box in enumerate(places)]
    out["area_borders"] = (list(range(10, 0, -1)), [1], borders, beside + lone + [found(9, 1, [10.0, 10.0, 50.0, 50.0], 0.5), found(9, 1, [100.0, 100.0, 50.0, 45.0], 0.3)])

    # An IoU of exactly 1/2, 3/4 and 0.9 counts at that threshold.
    square = [[20.0, 20.0, 40.0, 40.0], [100.0, 20.0, 40.0, 40.0], [200.0, 20.0, 40.0, 40.0]]
    cut = [[*box[:3], 40.0 * share] for box, share in zip(square, (0.5, 0.75, 0.9))]
    out["iou_at_thresholds"] = (three, [1], [truth(2, 1, box) for box in square], [found(2, 1, box, 0.9 - 0.1 * i) for i, box in enumerate(cut)])

    truths, detections = scattered("gaps", five, [4, 2, 7], 30, 100, 20)
    out["no_detections"] = (five, [4, 2, 7], truths, [])
    out["no_truth"] = (five, [4, 2, 7], [], detections)
    out["neither"] = (five, [4, 2, 7], [], [])
    # 7 has detections and no truth, 2 truth and no detections, 90 neither; two images are without truth.
    some = [t for t in truths if t["category_id"] != 7 and t["image_id"] not in (3, 25)]
    out["categories_without_truth"] = (five, [90, 4, 2, 7], some, [d for d in detections if d["category_id"] != 2])
    out["only_crowds"] = (three, [1], [truth(2, 1, field, crowd=1)], within)
    out["truth_twice"] = (three, [1], [truth(2, 1, one), truth(2, 1, one), truth(9, 1, one)], [found(2, 1, one, 0.5), found(2, 1, one, 0.5), found(9, 1, one, 0.5), found(9, 1, one, 0.4)])
    out["flat_boxes"] = (three, [1], [truth(2, 1, [10.0, 10.0, 0.0, 20.0], area=4.0), truth(2, 1, one)], [found(2, 1, [10.0, 10.0, 0.0, 20.0], 0.9), found(2, 1, one, 0.8)])
    return out


def evaluate(images, categories, truths, detections) -> dict:
    """pycocotools' twelve figures, and by category AP, AP50, AP75 and AR100."""
    with contextlib.redirect_stdout(io.StringIO()):
        listed = dict(images=[dict(id=i, width=400, height=300) for i in images], categories=[dict(id=c, name=f"c{c}") for c in categories])
        gt, dt = COCO(), COCO()
        gt.dataset = dict(listed, annotations=[dict(t, id=i + 1) for i, t in enumerate(truths)])
        dt.dataset = dict(listed, annotations=[dict(d, id=i + 1, area=d["bbox"][2] * d["bbox"][3], iscrowd=0) for i, d in enumerate(detections)])
        gt.createIndex()
        dt.createIndex()
        run = COCOeval(gt, dt, "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    precision, recall = run.eval["precision"][:, :, :, 0, -1], run.eval["recall"][:, :, 0, -1]

    def mean(values):
        known = values[values > -1]
        return float(known.mean()) if known.size else NO_TRUTH

    by_category = {str(c): [mean(precision[:, :, k]), mean(precision[0, :, k]), mean(precision[5, :, k]), mean(recall[:, k])] for k, c in enumerate(run.params.catIds)}
    return dict(stats=[float(s) for s in run.stats], by_category=by_category)


class Cases:
    """The file of all cases; `write` and `check` as those of `common.Golden`."""

    def __init__(self, values: dict):
        self.values = values

    def write(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = (f"{json.dumps(name)}:{json.dumps(case, separators=(',', ':'))}" for name, case in self.values.items())
        path.write_text("{\n" + ",\n".join(lines) + "\n}\n")

    def check(self, path: Path) -> Report:
        report = Report(path.name, len(self.values))
        if not path.exists():
            report.faults.append(f"{path}: missing; write it with `cargo xtask golden`")
            return report
        stored = json.loads(path.read_text())
        for name in sorted(set(stored) ^ set(self.values)):
            report.fault(f"{name}: on one side only")
        for name in sorted(set(stored) & set(self.values)):
            a, b = stored[name], self.values[name]
            for key in ("images", "categories", "truths", "detections"):
                if a[key] != b[key]:
                    report.fault(f"{name}: other {key}")
            if a["expected"]["by_category"].keys() != b["expected"]["by_category"].keys():
                report.fault(f"{name}: other categories are scored")
                continue
            numbers = lambda case: np.array([*case["expected"]["stats"], *(v for row in case["expected"]["by_category"].values() for v in row)])
            report.see(name, float(np.abs(numbers(a) - numbers(b)).max()), TOLERANCE)
        return report


def goldens() -> Cases:
    assert max(len([d for d in case[3] if d["category_id"] == 1]) for case in cases().values()) > 150
    named = lambda case: dict(zip(("images", "categories", "truths", "detections"), case), expected=evaluate(*case))
    return Cases({name: named(case) for name, case in cases().items()})
