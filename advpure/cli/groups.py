"""The options that verbs share, in groups that mirror the settings of `advpure.analysis`.

`Subject` and `JudgedSubject` are the options of the settings of the same names in
`advpure.analysis.subject`; `settings()` returns the keywords of those, with what is written in
shell form read. A verb adds its own options, and says by `advpure.cli.flatten` where it differs.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from advpure.cli import options as o
from advpure.cli.flatten import Group


@dataclass(frozen=True, kw_only=True)
class Subject(Group):
    """A purifier and images."""

    panel: ClassVar[str] = "Purifier and images"

    defense: o.Defense = "cm"
    dataset: o.Dataset = o.DEFAULT_DATASET
    n: o.Count = None
    subset: o.Subset = "test"
    t: o.Strength = None
    sigma: o.Sigma = None
    option: o.Options = None
    seed: o.Seed = 0
    scheme: o.Scheme = "hash"
    weights: o.Weights = None
    tile: o.Tile = None
    device: o.Device = "cpu"

    def settings(self) -> dict[str, Any]:
        """Return the keywords of the settings: images counted, options of the purifier parsed.

        Raises:
            BadInput: for an option that is not KEY=VALUE, or for a data set that is not known.

        Example:
            >>> told = Subject(dataset="digits", option=["clip_x0=true"]).settings()
            >>> told["n"], told["options"]
            (100, {'clip_x0': 'true'})
        """
        told = super().settings()
        if "n" in told:
            told["n"] = o.count(self.n, self.dataset, self.subset)
        if "option" in told:
            told["options"] = o.parse_options(told.pop("option"))
        return told


@dataclass(frozen=True, kw_only=True)
class JudgedSubject(Subject):
    """A purifier in front of a classifier, and images."""

    panel: ClassVar[str] = "Defense and images"

    classifier: o.Classifier = None
    outputs: o.Outputs = "logits"
    gradient: o.Gradient = None
    policy: o.Policy = None


@dataclass(frozen=True, kw_only=True)
class Attacked(Group):
    """An attack and its threat model; every verb says in its help which attacks it takes."""

    panel: ClassVar[str] = "Attack"

    eps: o.Eps = None
    norm: o.Norm = None
    attack: o.Attack = "pgd"
    steps: o.Steps = None
    step_size: o.StepSize = None
    loss: o.Loss = None
    attack_option: o.AttackOptions = None

    def own(self) -> dict[str, object]:
        """Return those of the attack's settings that have a flag and are given."""
        return o.given(steps=self.steps, step_size=self.step_size, loss=self.loss)

    def settings(self) -> dict[str, Any]:
        """Return the keywords of the settings; `attack_options` are those with and without a flag.

        Raises:
            BadInput: for an option that is not KEY=VALUE, or one that is given in both ways.

        Example:
            >>> told = Attacked(attack="apgd", steps=3, attack_option=["eot=2"]).settings()
            >>> told["attack"], told["attack_options"]
            ('apgd', {'eot': '2', 'steps': 3})
        """
        told = {k: v for k, v in super().settings().items() if k in ("eps", "norm", "attack")}
        told["attack_options"] = o.joined(o.parse_options(self.attack_option), self.own())
        return told


@dataclass(frozen=True, kw_only=True)
class Running(Group):
    """How a verb runs, and where its results go; of these, no result depends on any."""

    panel: ClassVar[str] = "Running and results"

    batch_size: o.BatchSize = None
    out: o.Out = None
    plot: o.Plot = None
    dry_run: o.DryRun = False
    as_json: o.Json = False
    quiet: o.Quiet = False

    @property
    def shown(self) -> bool:
        """Whether progress is to be shown."""
        return not (self.quiet or self.as_json)
