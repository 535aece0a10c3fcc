"""Goldens of twenty SGD steps (momentum, weight decay) of the narrow model, on two batches by turns, with given proposals.

A ReLU that float32 puts on the other side of 0 is a jump in the gradient, and in so narrow a model one of them shows. So
the seed is one whose whole way stays the same when every parameter is changed by more than float32's rounding.
"""

import torch
from torchvision.ops import FrozenBatchNorm2d

from common import STEPS, Golden, fill
from margins import watched
from model import GAINS, training
from training import CASES, decisive, make, proposals

CASE = dict(CASES["eighth"], seed="docent2", norm=FrozenBatchNorm2d)
# The decay is strong, so that a wrong one is seen after twenty steps.
COUNT, RATE, MOMENTUM, DECAY = 20, 1e-3, 0.9, 0.1
SHAKE = 2e-6
# Two images a batch; the second batch has a truth list of its own.
TRUTH = [
    [([[11.3, 9.7, 43.9, 38.2], [50.6, 21.1, 118.4, 88.8], [71.7, 5.2, 90.3, 23.9]], [3, 7, 10]), ([[20.4, 30.2, 68.7, 81.9], [42.1, 44.6, 93.3, 110.8]], [2, 5])],
    [([[60.2, 40.8, 110.9, 92.3], [3.4, 50.3, 30.8, 77.7]], [1, 9]), ([[8.8, 7.1, 90.7, 60.6], [30.3, 70.2, 55.5, 108.4], [70.1, 70.9, 99.2, 90.3]], [4, 8, 6])],
]  # fmt: skip


def truth(turn: int, dtype):
    return [dict(boxes=torch.tensor(boxes).to(dtype), labels=torch.tensor(labels)) for boxes, labels in TRUTH[turn]]


def run(dtype, shake=0.0) -> dict:
    model, bias = make(CASE)
    for name, parameter in model.named_parameters():
        parameter.data *= 1 + shake * fill(f"shake/{name}", parameter.shape)
    model = model.to(dtype).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM, weight_decay=DECAY)
    seeds = [f"{CASE['seed']}/{turn}" for turn in range(2)]
    given = [proposals(seed, truth(turn, torch.float32)) for turn, seed in enumerate(seeds)]
    losses = []
    for step in range(COUNT):
        turn = step % 2
        with watched(model) as margins:
            out = training(model, seeds[turn], dtype, truth(turn, dtype), given[turn])
        assert not decisive(margins), f"step {step}: {decisive(margins)}"
        losses.append(torch.stack([out["losses"][k] for k in ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg")]))
        optimizer.step()
    return dict(bias=bias, given=given, losses=torch.stack(losses), parameters=dict(model.named_parameters()))


def goldens() -> Golden:
    golden = Golden()
    a, b, c = run(torch.float64), run(torch.float32), run(torch.float64, SHAKE)
    for name, value in a["parameters"].items():
        moved = ((value - c["parameters"][name]).abs().max() / value.abs().max()).item()
        assert moved < STEPS / 5, f"{name} moves by {moved} when the start moves by {SHAKE}: take another seed"
    golden.note("gains", GAINS)
    golden.note("seed steps", CASE["seed"])
    golden.note("sgd", dict(steps=COUNT, lr=RATE, momentum=MOMENTUM, weight_decay=DECAY))
    golden.exact("steps.cls_bias", a["bias"])
    for turn in range(2):
        for i, target in enumerate(truth(turn, torch.float32)):
            golden.exact(f"truth{turn}.{i}.boxes", target["boxes"])
            golden.exact(f"truth{turn}.{i}.labels", target["labels"])
            golden.exact(f"proposals{turn}.{i}", a["given"][turn][i])
    total = a["losses"].sum(1)
    assert total[-2:].mean() < 0.8 * total[:2].mean(), f"the losses do not fall: {total.tolist()}"
    golden.add("losses", a["losses"], b["losses"], STEPS)
    for name, value in a["parameters"].items():
        golden.summary(f"after.{name}", value, b["parameters"][name], STEPS, 16)
    return golden
