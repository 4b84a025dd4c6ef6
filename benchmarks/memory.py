"""(c) Peak memory of one exact gradient through chains of 10, 100 and 1,000 steps.

Each length runs in a process of its own; the peak is the kernel's high-water mark of resident
memory, less what the process held before the gradient. Full autograd stands beside it.
"""

import json
import subprocess
import sys

_PROBE = """
import json, sys
import torch, advpure
from advpure.base.peak import peak_resident
t, mode = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
images, labels, ids = advpure.load_images("digits", n=64)
def peak():
    return peak_resident() / 2**20
def gradient(t, mode):
    d = advpure.load_defense("ddpm", t=t, xi=advpure.RandomnessConfig(0), gradient=mode, tile=64)
    x = images.clone().requires_grad_()
    torch.autograd.grad(d.bind(ids)(x).sum(), x)
gradient(1, mode)
before = peak()
gradient(t, mode)
print(json.dumps({"before": before, "peak": peak()}))
"""


def measure(lengths: tuple[int, ...] = (10, 100, 1000)) -> list[dict[str, object]]:
    """Return peak resident memory in MiB for every length, exact gradients and full autograd."""
    rows = []
    for t in lengths:
        row: dict[str, object] = {"t": t}
        for mode in ("checkpoint", "full") if t <= 100 else ("checkpoint",):
            done = subprocess.run(
                [sys.executable, "-c", _PROBE, str(t), mode],
                check=True, capture_output=True, text=True,
            )  # fmt: skip
            found = json.loads(done.stdout)
            row[f"{mode}_peak_mib"] = found["peak"]
            row[f"{mode}_increase_mib"] = found["peak"] - found["before"]
        rows.append(row)
    return rows
