"""Writes the golden files of the Rust tests, or compares them with a new computation.

    python xtask/golden/generate.py --out .      writes crates/*/tests/golden/*.safetensors under the given root
    python xtask/golden/generate.py --check .    recomputes and compares; exit status 1 on a difference
"""

import argparse
import os
import sys
from pathlib import Path

# One thread and no vendor-specific shortcuts: the float32 runs then say the same on every machine of one kind.
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.dont_write_bytecode = True

import torch  # noqa: E402

import distill  # noqa: E402
import model  # noqa: E402
import ops  # noqa: E402

FILES = {
    "crates/ops/tests/golden/ops.safetensors": ops.goldens,
    "crates/detect/tests/golden/model.safetensors": model.goldens,
    "crates/distill/tests/golden/terms.safetensors": distill.goldens,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--out", type=Path, metavar="ROOT", help="write the files under this repository root")
    action.add_argument("--check", type=Path, metavar="ROOT", help="compare with the files under this repository root")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    faults, total = [], 0
    for name, goldens in FILES.items():
        path = (arguments.out or arguments.check) / name
        golden = goldens()
        if arguments.check:
            faults += golden.check(path)
        else:
            golden.write(path)
        total += path.stat().st_size if path.exists() else 0
        print(f"{name}: {len(golden.values)} values")
    print(f"together {total / 1024:.0f} KiB")
    for fault in faults:
        print(fault)
    if arguments.check:
        print(f"{len(faults)} differences")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
