"""Goldens of torch.optim.AdamW: two settings, two groups, a rate that changes, a step in which a parameter has no gradient."""

import torch

from common import GRADIENT, Golden, fill

STEPS = 12
SHAPES = {"a.weight": (6, 5, 3), "a.bias": (6,), "b.weight": (4, 9)}
# The group of biases: no decay, twice the rate.
BIAS = dict(lr_mult=2.0, weight_decay=0.0)
CASES = {
    "default": dict(betas=[0.9, 0.999], eps=1e-8, weight_decay=0.01, lr=0.02),
    "other": dict(betas=[0.8, 0.95], eps=1e-2, weight_decay=0.3, lr=0.05),
}
# In this step `b.weight` has no gradient, as a parameter that no proposal reached.
SKIPPED = 4


def rate(lr: float, step: int) -> float:
    """A warm-up of four steps, and a tenth from the ninth on."""
    return lr * min(1.0, (step + 1) / 4) * (0.1 if step >= 8 else 1.0)


def run(name: str, case: dict, dtype) -> dict:
    parameters = {k: fill(f"adamw/{name}/{k}", shape).to(dtype).requires_grad_() for k, shape in SHAPES.items()}
    bias, rest = [[p for k, p in parameters.items() if k.endswith("bias") == is_bias] for is_bias in (True, False)]
    groups = [dict(params=rest), dict(params=bias, weight_decay=BIAS["weight_decay"])]
    optimizer = torch.optim.AdamW(groups, betas=tuple(case["betas"]), eps=case["eps"], weight_decay=case["weight_decay"], foreach=False)
    for step in range(STEPS):
        for k, p in parameters.items():
            missing = k == "b.weight" and step == SKIPPED
            # Gradients of very different sizes, so that eps decides something.
            size = 10.0 ** (step % 3 - 2)
            p.grad = None if missing else (fill(f"adamw/{name}/{k}/{step}", p.shape) * size).to(torch.float32).to(dtype)
        optimizer.param_groups[0]["lr"] = rate(case["lr"], step)
        optimizer.param_groups[1]["lr"] = rate(case["lr"], step) * BIAS["lr_mult"]
        optimizer.step()
    state = {k: optimizer.state[p] for k, p in parameters.items()}
    return dict(parameters=parameters, state=state)


def goldens() -> Golden:
    golden = Golden()
    golden.note("adamw", dict(steps=STEPS, skipped=SKIPPED, bias=BIAS, shapes=SHAPES))
    for name, case in CASES.items():
        golden.note(f"case {name}", case)
        a, b = run(name, case, torch.float64), run(name, case, torch.float32)
        for k in SHAPES:
            golden.add(f"{name}.after.{k}", a["parameters"][k], b["parameters"][k], GRADIENT / 10)
            for part in ("exp_avg", "exp_avg_sq"):
                golden.add(f"{name}.{part}.{k}", a["state"][k][part], b["state"][k][part], GRADIENT / 10)
            golden.exact(f"{name}.step.{k}", a["state"][k]["step"])
    return golden
