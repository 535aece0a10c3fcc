"""What every golden shares: the fill formula, and the file that holds values beside torch's own float32 error."""

import json
import math
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save_file

MASK = (1 << 64) - 1
GAMMA = 0x9E3779B97F4A7C15

# Stated bounds. The bound of a value is the larger of the stated one and three times torch-float32's own distance.
OPS = 1e-5
PIXELS = 1e-2
SCORES = 1e-4
LOSS = 1e-5
GRADIENT = 1e-4
STEPS = 1e-3
# Of a value's largest magnitude: how far a second computation in float64 may be from the stored float32 value.
RECOMPUTED = 1e-6


def fnv1a(name: str) -> int:
    """64-bit FNV-1a of the name's UTF-8 bytes."""
    h = 0xCBF29CE484222325
    for byte in name.encode():
        h = ((h ^ byte) * 0x100000001B3) & MASK
    return h


def bits(name: str, index: np.ndarray) -> np.ndarray:
    """The index-th output of splitmix64 started at fnv1a(name)."""
    with np.errstate(over="ignore"):
        z = np.uint64(fnv1a(name)) + (index.astype(np.uint64) + np.uint64(1)) * np.uint64(GAMMA)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def unit(name: str, index: np.ndarray) -> np.ndarray:
    """Values in [-1, 1) with 24 bits, exact in float32."""
    return (bits(name, index) >> np.uint64(40)).astype(np.float64) / 8388608.0 - 1.0


def fill(name: str, shape, scale: float = 1.0, offset: float = 0.0) -> torch.Tensor:
    """offset + scale * unit, rounded to float32, given back as float64: float32 and float64 runs see the same numbers."""
    n = math.prod(shape)
    values = offset + scale * unit(name, np.arange(n))
    return torch.from_numpy(values.astype(np.float32).astype(np.float64)).reshape(tuple(shape))


def image(name: str, height: int, width: int) -> torch.Tensor:
    """[3, height, width] in [0, 1): blocks of 16 pixels, plus blocks of 4, so that features differ from place to place."""
    c, y, x = np.meshgrid(np.arange(3), np.arange(height), np.arange(width), indexing="ij")
    coarse = unit(name + ".coarse", (c * 64 + y // 16) * 64 + x // 16)
    fine = unit(name + ".fine", (c * 256 + y // 4) * 256 + x // 4)
    values = 0.5 + 0.3 * coarse + 0.2 * fine
    return torch.from_numpy(values.astype(np.float32).astype(np.float64))


def parameter(seed: str, name: str, shape, gain: float = 1.0) -> torch.Tensor:
    """A parameter or buffer by its torchvision name. Both languages follow the same five lines."""
    key = f"{seed}/{name}"
    if name.endswith("running_var"):
        return fill(key, shape, 0.25, 1.0)
    if name.endswith("running_mean") or name.endswith("bias"):
        return fill(key, shape, 0.1 * gain)
    if len(shape) == 1:  # the weight of a norm
        return fill(key, shape, 0.25, 0.75)
    return fill(key, shape, gain * math.sqrt(6.0 / math.prod(shape[1:])))


def pick(name: str, n: int, k: int) -> np.ndarray:
    """k flat indices below n; all of them when there are no more than k."""
    if n <= k:
        return np.arange(n)
    return (bits(name + "#pick", np.arange(k)) % np.uint64(n)).astype(np.int64)


class Golden:
    """Named values with their bounds.

    A value is added as its float64 and its float32 computation. `kind` says how a difference is measured:
    `rel` is the largest difference over the largest magnitude of the reference, `abs` the largest difference,
    `exact` allows none (integers, and floats that both sides hold exactly).
    """

    def __init__(self):
        self.values = {}
        self.meta = {}

    def note(self, key: str, value):
        """A setting that the Rust side reads: a case's shapes, a seed, the gains."""
        self.meta[key] = json.loads(json_note(value))

    def exact(self, name: str, value):
        array = value.detach().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
        if array.dtype == np.float64 or array.dtype == np.float32:
            array32 = array.astype(np.float32)
            assert np.array_equal(array32.astype(np.float64), array.astype(np.float64)), f"{name}: not exact in float32"
            array = array32
        else:
            array = array.astype(np.int64)
        self._put(name, array, "exact", 0.0, 0.0)

    def add(self, name: str, reference: torch.Tensor, single: torch.Tensor, stated: float, kind: str = "rel"):
        assert reference.dtype == torch.float64, f"{name}: the reference must be float64"
        assert single.dtype == torch.float32, f"{name}: the comparison must be float32"
        assert reference.shape == single.shape, f"{name}: {tuple(reference.shape)} and {tuple(single.shape)}"
        a, b = reference.detach().numpy(), single.detach().numpy().astype(np.float64)
        assert np.isfinite(a).all(), f"{name}: not finite"
        scale = float(np.abs(a).max(initial=0.0)) if kind == "rel" else 1.0
        distance = float(np.abs(a - b).max(initial=0.0)) / (scale or 1.0)
        # A scalar stays float64: storing it must not cost a digit that its bound looks at.
        self._put(name, a if a.ndim == 0 else a.astype(np.float32), kind, distance, stated)

    def summary(self, name: str, reference: torch.Tensor, single: torch.Tensor, stated: float, samples: int = 32):
        """A big tensor, as its Euclidean norm and `samples` entries measured against its largest magnitude."""
        norm = lambda t: torch.linalg.vector_norm(t.detach().double())
        self.add(f"{name}|norm", norm(reference), norm(single).float(), stated)
        index = torch.from_numpy(pick(name, reference.numel(), samples))
        peak = reference.detach().abs().max()
        a = torch.cat([reference.detach().reshape(-1)[index], peak[None]])
        b = torch.cat([single.detach().reshape(-1)[index], single.detach().abs().max()[None]])
        self.add(f"{name}|samples", a, b, stated)

    def _put(self, name, array, kind, distance, stated):
        assert name not in self.values, f"{name}: twice"
        self.values[name] = np.array(array, order="C")  # a scalar stays one
        self.meta[f"bound {name}"] = f"{kind} {stated:.3e} {distance:.3e}"

    def write(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        versions = {"torch": torch.__version__.split("+")[0], "generator": "xtask/golden/generate.py"}
        # One key: safetensors writes several in no fixed order, and the file should be the same each time.
        save_file(self.values, path, metadata={"golden": json_note({**self.meta, **versions})})
        path.chmod(0o644)

    def check(self, path: Path) -> "Report":
        """These values beside the stored ones; float64 results differ between machines by rounding only."""
        report = Report(path.name, len(self.values))
        if not path.exists():
            report.faults.append(f"{path}: missing; write it with `cargo xtask golden`")
            return report
        with safe_open(path, framework="numpy") as stored:
            meta = json.loads(stored.metadata()["golden"])
            for name in sorted(set(stored.keys()) ^ set(self.values)):
                report.fault(f"{name}: on one side only")
            for key, value in self.meta.items():
                if not key.startswith("bound ") and meta.get(key) != value:
                    report.fault(f"setting {key}: stored {meta.get(key)}, now {value}")
            for name in sorted(set(stored.keys()) & set(self.values)):
                a, b = stored.get_tensor(name), self.values[name]
                if a.shape != b.shape or a.dtype != b.dtype:
                    report.fault(f"{name}: stored {a.dtype}{a.shape}, now {b.dtype}{b.shape}")
                    continue
                kind, stated = meta[f"bound {name}"].split(" ")[:2]
                if self.meta[f"bound {name}"].split(" ")[:2] != [kind, stated]:
                    report.fault(f"{name}: stated bound {kind} {stated}, now {self.meta[f'bound {name}']}")
                a, b = a.astype(np.float64), b.astype(np.float64)
                worst = float(np.abs(a - b).max(initial=0.0))
                report.see(name, worst, 0.0 if kind == "exact" else RECOMPUTED * max(1e-30, float(np.abs(a).max(initial=0.0))))
        return report


class Report:
    """What a check of one file found."""

    def __init__(self, file: str, values: int):
        self.file, self.values = file, values
        self.faults = []
        self.share = 0.0  # the largest difference as a share of what was allowed

    def fault(self, line: str):
        self.faults.append(f"{self.file}: {line}")

    def see(self, name: str, worst: float, limit: float):
        if not worst <= limit:
            self.fault(f"{name}: differs by {worst:.3e}, allowed {limit:.3e}")
        elif limit:
            self.share = max(self.share, worst / limit)


def both(function):
    """Runs `function(dtype)` in float64 and in float32."""
    return function(torch.float64), function(torch.float32)


def json_note(value) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
