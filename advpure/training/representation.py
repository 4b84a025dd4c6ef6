"""Pre-train an encoder whose representation stays the same along a diffusion trajectory.

With views a1, a2 of an image x, one noise z for all of them, neighbouring nodes t > s of a grid
that is refined while training goes on, and its end t0, minimise for each image

    N(P(a1 + t0 z, t0), P'(a2 + t0 z, t0)) + N(P(a2 + t0 z, t0), P'(a1 + t0 z, t0))
    + N(E(x + t z, t), E(x_s, s)),

where N is `info_nce` and nothing flows through its second argument. P' is a moving average of the
network, E on both sides the network itself. The pair t, s is one for the whole batch: keys of other
levels would be told apart by their noise.

The point x_s is x + s z, as in the released code, or one step of the probability-flow ODE from
x + t z with a given denoiser, as the abstract says ("ode").

Source: [Lei2025] and its released code. Unlike there, the projection head sees no state of the
third term (it is read by none), and the target of that term builds no graph; the loss is the same.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from advpure.base.errors import BadInput
from advpure.base.units import to_model
from advpure.core.denoisers import Denoiser, checked_range, network_inputs
from advpure.core.schedules import karras_grid, nearest_node
from advpure.networks.representation import PROJECTION, RepresentationNetwork
from advpure.networks.weights import LoadedNetwork
from advpure.training.consistency import heun_step
from advpure.training.contrastive import info_nce
from advpure.training.curricula import representation_nodes, sigmoid_decay
from advpure.training.neighbours import Memory, neighbour_classes
from advpure.training.noise_ranges import RANGE
from advpure.training.precision import unwrapped
from advpure.training.randomness import integers, normal
from advpure.training.tasks import Batch, Task, take
from advpure.training.views import VIEWS, Views

_DEFAULTS = {
    "sigma_data": 0.5,
    "sigma_min": 0.002,
    "sigma_max": 80.0,
    "first": 20,
    "last": 80,
    "temperature": 0.2,
    "contrastive": 1.0,
    "consistency": 1.0,
    "trajectory": "noise",
    "denoiser": "",
    "one_level": 0.0,
    "decay_start": 0.99,
    "decay_end": 0.9999,
    "decay_sharpness": 15.0,
    **VIEWS,
}
_NODES = "nodes"
_MEMORY, _ASKED, _LEVEL = 1000, 500, 0.5


class RepresentationTask(Task):
    """Pre-train an encoder of noisy images without labels.

    Args:
        dataset: Data set whose training images also validate.
        settings: sigma_data, sigma_min, sigma_max; first and last (s0 and s1 of the grid);
            temperature; contrastive and consistency (weights of the two kinds of terms, 0 for
            none); trajectory (`noise` or `ode`) and denoiser (a shipped name or a weights file,
            of `ode`); one_level (consistency at the node nearest to this level alone, [0, 1]
            units; 0 for all levels); decay_start, decay_end and decay_sharpness (of the moving
            average); and those of `advpure.training.views`.
        teacher: None.
    """

    metric_name = "neighbour_accuracy"

    def __init__(
        self, dataset: str, settings: Mapping[str, Any], teacher: LoadedNetwork | None = None
    ) -> None:
        """Check the settings, read the images that validate and their neighbours."""
        values = take(settings, _DEFAULTS)
        self.values, self.views = values, Views.of(values)
        self.range = checked_range({name: values[name] for name in RANGE})
        if values["first"] > values["last"]:
            raise BadInput(
                f"first {values['first']}", f"is above last {values['last']}", "lower it"
            )
        if not values["decay_start"] < values["decay_end"]:
            raise BadInput(
                f"decay_start {values['decay_start']}",
                f"is not below decay_end {values['decay_end']}",
                "lower it",
            )
        if not (values["contrastive"] or values["consistency"]):
            raise BadInput("contrastive 0 and consistency 0", "leave no loss", "raise one")
        self.denoiser = self._trajectory(str(values["denoiser"]))
        known = Memory.first(dataset, _MEMORY + _ASKED)
        kept = len(known.labels) * _MEMORY // (_MEMORY + _ASKED)
        self.memory = Memory(known.images[:kept], known.labels[:kept])
        self.held_out = Batch(known.images[kept:], known.labels[kept:])
        self.target: RepresentationNetwork | None = None
        self.begin_step(0, 1)

    def _trajectory(self, name: str) -> Denoiser | None:
        """Load the denoiser of the ODE, where the trajectory is one."""
        is_ode = self.values["trajectory"] == "ode"
        if is_ode != bool(name):
            rule = "needs a denoiser" if is_ode else "means nothing to trajectory noise"
            what = "trajectory ode" if is_ode else f"denoiser {name}"
            raise BadInput(what, rule, "give both, or none of them")
        if not is_ode:
            return None
        from advpure.loading import load_denoiser

        denoiser = load_denoiser(name)
        if (
            not denoiser.sigma_min
            <= self.range["sigma_min"]
            < self.range["sigma_max"]
            <= (denoiser.sigma_max * (1 + 1e-6))
        ):
            raise BadInput(
                f"denoiser {name} of levels {denoiser.sigma_min:g} to {denoiser.sigma_max:g}",
                "does not cover sigma_min to sigma_max",
                "narrow them, or give another denoiser",
            )
        return denoiser

    def start(self, network: nn.Module) -> None:
        """Make the moving average.

        Raises:
            BadInput: for a network that is no encoder with a projection head.
        """
        if not isinstance(network, RepresentationNetwork) or not hasattr(network, PROJECTION):
            raise BadInput("network", "has no projection head", "use vit with hidden, as in 256")
        self.target = copy.deepcopy(network).requires_grad_(False).train()

    def networks(self) -> Sequence[nn.Module]:
        """Return the moving average."""
        assert self.target is not None
        return (self.target,)

    def rate_of(self, network: nn.Module, name: str) -> float:
        """Return 0 for patches that stay as they were drawn, 1 for everything else."""
        config: Any = getattr(network, "config", None)
        frozen = getattr(config, "frozen_patches", False) and name.startswith("patch_embed")
        return 0.0 if frozen else 1.0

    def begin_step(self, step: int, steps: int) -> None:
        """Choose the grid of a step, and how far the average moves after it."""
        values = self.values
        self._lay_grid(representation_nodes(step, steps, int(values["first"]), int(values["last"])))
        self.decay = sigmoid_decay(
            step,
            steps,
            float(values["decay_start"]),
            float(values["decay_end"]),
            float(values["decay_sharpness"]),
        )

    def _lay_grid(self, nodes: int) -> None:
        self.nodes = nodes
        grid = karras_grid(nodes, self.range["sigma_min"], self.range["sigma_max"])
        self.grid = torch.from_numpy(grid.astype(np.float32))
        level = 2.0 * float(self.values["one_level"])
        self.only = min(nearest_node(grid, level), nodes - 2) if level else None

    def end_step(self, network: nn.Module) -> None:
        """Move the average; running statistics stay, as it normalises by its own batches."""
        assert self.target is not None
        pairs = zip(self.target.parameters(), network.parameters(), strict=True)
        with torch.no_grad():  # the average is no function of the parameters to differentiate
            mine, theirs = (list(side) for side in zip(*pairs, strict=True))
            torch._foreach_lerp_(mine, theirs, 1.0 - self.decay)

    def state(self) -> dict[str, Tensor]:
        """Return the average, and the number of nodes of the last step."""
        assert self.target is not None
        nodes = torch.tensor(self.nodes, dtype=torch.int64, device="cpu")
        return {**self.target.state_dict(), _NODES: nodes}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Set the average and the grid."""
        assert self.target is not None
        self._lay_grid(int(state[_NODES]))
        self.target.load_state_dict({k: v for k, v in state.items() if k != _NODES})

    def losses(self, network: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return the loss of each image, [B]: the three terms, each with its weight."""
        clean = to_model(batch.images)
        noise = normal(clean.shape, generator).to(clean.device)
        node = int(integers(0, self.nodes - 1, (1,), generator))
        node = node if self.only is None else self.only
        t, s, end = (float(self.grid[k]) for k in (node, node + 1, -1))
        weights = [float(self.values[name]) for name in ("contrastive", "consistency")]
        states, levels = [], []
        if weights[0]:
            pair = self.views.pair(batch.images, generator)
            states = [to_model(view) + end * noise for view in pair]
            levels = [end, end]
        if weights[1]:
            states.append(clean + t * noise)
            levels.append(t)
        count, lost = len(clean), torch.zeros((), device=clean.device)
        with unwrapped(network) as inner:
            # One call for all states: rows do not see each other before the projection head. It
            # comes before the calls without gradient, since autocast keeps the weights it casts.
            online = inner.features(*self._inputs(states, levels)).split(count)
            if weights[0]:
                asked = [inner.project(each) for each in online[:2]]
                keys = self._targets(states[:2], end)
                lost = lost + weights[0] * (
                    self._nce(asked[0], keys[1]) + self._nce(asked[1], keys[0])
                )
            if weights[1]:
                with torch.no_grad():  # the target is a constant: that is the method
                    earlier = self._earlier(clean, noise, t, s)
                    aim = inner.features(*self._inputs([earlier], [s]))
                lost = lost + weights[1] * self._nce(online[-1], aim)
        return lost

    def _targets(self, states: list[Tensor], level: float) -> list[Tensor]:
        """Return the average's projections of both views; each normalised by its own batch."""
        target = self.target
        assert target is not None
        with torch.no_grad():  # the target is a constant: that is the method
            features = target.features(*self._inputs(states, [level] * len(states)))
            return [target.project(each) for each in features.chunk(len(states))]

    def _nce(self, queries: Tensor, keys: Tensor) -> Tensor:
        return info_nce(queries.float(), keys.float(), float(self.values["temperature"]))

    def _earlier(self, clean: Tensor, noise: Tensor, t: float, s: float) -> Tensor:
        """Return the point of the trajectory at the lower level s."""
        if self.denoiser is None:
            return clean + s * noise
        here, there = (clean.new_full((len(clean),), level) for level in (t, s))
        with torch.autocast(clean.device.type, enabled=False):
            return heun_step(self.denoiser.to(clean.device), clean + t * noise, here, there)

    def _inputs(self, states: list[Tensor], levels: list[float]) -> tuple[Tensor, Tensor]:
        """Return what the network takes for states of one level each, one below the other."""
        pairs = [
            network_inputs(x, level, self.range["sigma_data"])
            for x, level in zip(states, levels, strict=True)
        ]
        return torch.cat([x for x, _ in pairs]), torch.cat([c for _, c in pairs])

    def score(self, network: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return which noisy images have the class of the nearest clean image, [B].

        The noise is sigma 0.25, the distance the cosine of the representations. All images are
        training images, the first 1,500: two thirds of them are clean, a third is asked. So no
        test image has a say in when to stop.
        """
        clean = to_model(batch.images)
        noise = normal(clean.shape, generator).to(clean.device)
        classes = neighbour_classes(
            network,
            self.memory,
            clean + _LEVEL * noise,
            _LEVEL,
            self.range["sigma_min"],
            self.range["sigma_data"],
        )
        return (classes == batch.labels).float()

    def facts(self) -> dict[str, Any]:
        """Return the noise range, sigma_data, and the nodes of the last grid, model units."""
        return {**self.range, "nodes": self.nodes, "trajectory": self.values["trajectory"]}
