"""Writes the golden files of the Rust tests, or compares them with a new computation. `cargo xtask golden` calls it.

    python xtask/golden/generate.py --out .      writes crates/*/tests/golden/* under the given root
    python xtask/golden/generate.py --check .    recomputes and compares; exit status 1 on a difference
"""

import argparse
import importlib
import os
import sys
import time
from importlib import metadata
from pathlib import Path

# One thread and no vendor-specific shortcuts: the float32 runs then say the same on every machine of one kind.
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.dont_write_bytecode = True

import torch  # noqa: E402

# A file, and the module whose `goldens()` makes it.
FILES = {
    "crates/ops/tests/golden/ops.safetensors": "ops",
    "crates/detect/tests/golden/stages.safetensors": "stages",
    "crates/detect/tests/golden/model.safetensors": "model",
    "crates/detect/tests/golden/mobilenet.safetensors": "mobilenet",
    "crates/detect/tests/golden/training.safetensors": "training",
    "crates/distill/tests/golden/terms.safetensors": "distill",
    "crates/distill/tests/golden/share.safetensors": "share",
    "crates/distill/tests/golden/rivals.safetensors": "rivals",
    "crates/train/tests/golden/pipeline.safetensors": "pipeline",
    "crates/train/tests/golden/steps.safetensors": "steps",
    "crates/train/tests/golden/adamw.safetensors": "adamw",
    "crates/coco/tests/golden/metrics.json": "metrics",
    "crates/coco/tests/golden/jitter.json": "jitter",
}
# All golden files together, those that this run left alone too.
MOST_BYTES = 3_000_000


def wrong_versions() -> list[str]:
    """Installed versions that differ from the pinned ones."""
    lines = (Path(__file__).parent / "requirements.txt").read_text().splitlines()
    pins = [line.split("==") for line in lines if "==" in line]
    found = {name: metadata.version(name).split("+")[0] for name, _ in pins}
    return [f"{name} {found[name]}, pinned is {pin}" for name, pin in pins if found[name] != pin]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--out", type=Path, metavar="ROOT", help="write the files under this repository root")
    action.add_argument("--check", type=Path, metavar="ROOT", help="compare with the files under this repository root")
    parser.add_argument("--only", default="", metavar="TEXT", help="the files whose path contains this")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    faults = wrong_versions()
    if faults and arguments.out:
        print(f"not written: {'; '.join(faults)}")
        return 1
    root = arguments.out or arguments.check
    for name, module in FILES.items():
        if arguments.only not in name:
            continue
        start = time.monotonic()
        golden = importlib.import_module(module).goldens()
        if arguments.check:
            report = golden.check(root / name)
            faults += report.faults
            said = f"{len(report.faults)} differences; else at most {report.share:.0%} of what is allowed"
        else:
            golden.write(root / name)
            said = f"{(root / name).stat().st_size / 1024:.0f} KiB"
        print(f"{name}: {len(golden.values)} values, {said} ({time.monotonic() - start:.0f} s)", flush=True)
    total = sum(file.stat().st_size for file in root.glob("crates/*/tests/golden/*") if file.suffix != ".rs")
    print(f"all golden files: {total / 1024:.0f} KiB")
    if total > MOST_BYTES:
        faults.append(f"the golden files take {total} bytes, allowed are {MOST_BYTES}")
    # No file of its own: weights go from torchvision to docent and back.
    if arguments.check and arguments.only in "weights":
        faults += importlib.import_module("weights").check(root)
    for fault in faults:
        print(fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
