"""PyTorch's side of `cargo xtask bench peers`: answers the lines that docent's side answers.

time CASE, shares CASE, memory CASE; see crates/study/benches/peers for both the protocol and what the cases are.
"""

import ctypes
import os
import sys
import time

import torch
import torchvision

import steps

SAMPLE = 0.2


def unit(i, k):
    """A number in 0..1, by docent's formula."""
    return ((i * 7919 + k * 3557 + i * i % 1009 * 31) % 10007) / 10007.0


def boxes(n, height, width):
    """Boxes with sides between 16 and 216 pixels, anywhere in an image."""
    rows = []
    for i in range(n):
        w, h = 16 + 200 * unit(i, 2), 16 + 200 * unit(i, 3)
        x, y = unit(i, 0) * (width - w), unit(i, 1) * (height - h)
        rows.append([x, y, x + w, y + h])
    return torch.tensor(rows)


def differentiated(f, operands, both):
    """A call of f, or of f and its gradients for all operands."""
    operands = [o.requires_grad_(both) for o in operands]
    with torch.no_grad():
        seed = torch.ones_like(f(*operands))

    def call():
        if not both:
            with torch.no_grad():
                f(*operands)
            return
        for o in operands:
            o.grad = None
        f(*operands).backward(seed)

    return call


class Case:
    """A named piece of work with its operands."""

    def __init__(self, name):
        words = name.split()
        both = words[-1] == "both"
        self.step = None
        rand = lambda *shape: torch.rand(*shape) * 2 - 1
        if words[0] == "conv":
            b, c_in, c_out, k, stride, h, w = map(int, words[1:8])
            conv = lambda x, w: torch.nn.functional.conv2d(x, w, stride=stride, padding=k // 2)
            self.call = differentiated(conv, [rand(b, c_in, h, w), rand(c_out, c_in, k, k)], both)
        elif words[0] == "roi":
            n, c, h, w = map(int, words[1:5])
            rois = [boxes(n, 8 * h, 8 * w)]
            align = lambda x: torchvision.ops.roi_align(x, rois, 7, 0.125, 2, False)
            self.call = differentiated(align, [rand(1, c, h, w)], both)
        elif words[0] == "nms":
            n = int(words[1])
            b, scores = boxes(n, 800, 1333), torch.tensor([unit(i, 4) for i in range(n)])
            self.call = lambda: torchvision.ops.nms(b, scores, 0.7)
        elif words[0] == "detect":
            model = steps.r50().eval()
            images = steps.batch(int(words[1]), 320, 320)[0]

            def detect():
                with torch.inference_mode():
                    model(images)

            self.call = detect
        elif words[0] == "step":
            self.step = steps.Step(words[1])
            self.call = self.step.call
        else:
            raise SystemExit(f"unknown case {name}")

    def time(self):
        self.call()
        start, calls = time.perf_counter(), 0
        while time.perf_counter() - start < SAMPLE:
            self.call()
            calls += 1
        return (time.perf_counter() - start) * 1e3 / calls

    def shares(self):
        self.call()
        return " ".join(str(s * 1e3) for s in (self.step.shares if self.step else (0, 0, 0)))

    def memory(self):
        # The library's own pages that any step touches are no part of what a step needs.
        x, w = (torch.ones(1, 8, 16, 16, requires_grad=True), torch.ones(8, 8, 3, 3, requires_grad=True))
        torch.nn.functional.linear(torch.nn.functional.conv2d(x, w).flatten(1), torch.ones(4, 1568)).sum().backward()
        trim()
        before = status("VmRSS:")
        for _ in range(3):
            self.call()
        return max(0, status("VmHWM:") - before)


def trim():
    """Gives freed memory back to the system, where its C library can."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError):
        pass


def status(key):
    """A field of /proc/self/status in KiB, 0 where there is none."""
    try:
        with open("/proc/self/status") as f:
            return next(int(line.split()[1]) for line in f if line.startswith(key))
    except (OSError, StopIteration):
        return 0


def main():
    torch.manual_seed(0)
    threads = int(os.environ.get("DOCENT_BENCH_THREADS", "0"))
    if threads:
        torch.set_num_threads(threads)
    print(f"torch {torch.__version__}, torchvision {torchvision.__version__}, {torch.get_num_threads()} threads", flush=True)
    name = case = None
    for line in sys.stdin:
        command, _, wanted = line.strip().partition(" ")
        if wanted != name:
            case = None
            name, case = wanted, Case(wanted)
        print(getattr(case, command)(), flush=True)


if __name__ == "__main__":
    main()
