"""Goldens of colour jitter: torchvision's v2 functions on 8-bit RGB, one by one and one after the other."""

import json
from pathlib import Path

import numpy as np
import torch
from torchvision.transforms.v2 import functional

from common import Report, unit

HEIGHT, WIDTH = 12, 16
FUNCTIONS = dict(brightness=functional.adjust_brightness, contrast=functional.adjust_contrast, saturation=functional.adjust_saturation, hue=functional.adjust_hue)
# (property, factor) in the order in which they are applied.
CASES = {
    **{f"brightness {f}": [("brightness", f)] for f in (0.0, 0.37, 1.8)},
    **{f"contrast {f}": [("contrast", f)] for f in (0.0, 0.55, 1.9)},
    **{f"saturation {f}": [("saturation", f)] for f in (0.0, 0.55, 2.2)},
    **{f"hue {f}": [("hue", f)] for f in (-0.5, -0.13, 0.021, 0.4)},
    "all": [("hue", 0.07), ("brightness", 1.21), ("saturation", 0.7), ("contrast", 1.3)],
    "all the other way": [("contrast", 0.8), ("saturation", 1.4), ("brightness", 0.85), ("hue", -0.06)],
}


def picture() -> torch.Tensor:
    """Colours of every kind; its first row is grey, black, white and pure."""
    values = np.floor((unit("jitter", np.arange(3 * HEIGHT * WIDTH)) + 1) * 128).reshape(3, HEIGHT, WIDTH)
    pure = [[0, 0, 0], [255, 255, 255], [7, 7, 7], [255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [0, 255, 255], [255, 0, 255], [200, 200, 10], [10, 200, 200], [200, 10, 200]]
    values[:, 0, : len(pure)] = np.array(pure).T
    return torch.from_numpy(values.astype(np.uint8))


def levels(image: torch.Tensor) -> list[int]:
    """Pixel by pixel, as the Rust side keeps them."""
    return image.permute(1, 2, 0).flatten().tolist()


class Jitter:
    """An image and what becomes of it."""

    def __init__(self):
        self.values = {"picture": dict(width=WIDTH, height=HEIGHT, changes=[], levels=levels(picture()))}
        for name, changes in CASES.items():
            image = picture()
            for what, factor in changes:
                image = FUNCTIONS[what](image, factor)
            self.values[name] = dict(width=WIDTH, height=HEIGHT, changes=changes, levels=levels(image))

    def write(self, path: Path):
        lines = (f"{json.dumps(name)}:{json.dumps(case, separators=(',', ':'))}" for name, case in self.values.items())
        path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
        path.chmod(0o644)

    def check(self, path: Path) -> Report:
        report = Report(path.name, len(self.values))
        stored = json.loads(path.read_text()) if path.exists() else {}
        computed = json.loads(json.dumps(self.values))
        for name in sorted(set(stored) | set(computed)):
            if stored.get(name) != computed.get(name):
                report.fault(f"{name}: differs from what is stored")
        return report


def goldens() -> Jitter:
    return Jitter()
