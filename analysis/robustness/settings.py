"""What an attack run is asked; an audit that begins with one is asked the same."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from advpure.analysis.robustness.attack_choice import AUTO, chosen_attack
from advpure.analysis.robustness.protocol import Randomness
from advpure.analysis.robustness.timed import Budget
from advpure.analysis.subject import Attacked, DefenseSubject
from advpure.attacks.settings import Count
from advpure.base.errors import BadInput
from advpure.base.flags import Flag
from advpure.base.kinds import Seed


@dataclass(frozen=True, kw_only=True)
class RobustnessSettings(Attacked, DefenseSubject):
    """Attack, budget and protocol.

    Attributes:
        attack: Attack; `advpure models` lists them, also of other libraries: foolbox:LinfPGD. auto:
            standard, but pgd with --transfer-from or an option of pgd.
        budget: Evaluations an image, such as 500, or the time of a session, such as 10min. Default:
            2000 evaluations of the standard attack, 10000 of another library's.
        protocol: paper: PGD of 40 steps of eps/30 from a random start, the paper's.
        randomness: Attack and decide under one randomness configuration, or under disjoint draws.
        draws: Decisions per image under fresh randomness. Default: 10 of a random defense, else 1.
        source_seed: Craft under this base seed, decide under --seed (needs --fix-random).
    """

    attack: Annotated[str, Flag("--attack", "-a")] = AUTO
    budget: int | str | None = None
    protocol: Literal["paper"] | None = None
    randomness: Annotated[Randomness, Flag("--fix-random/--fresh-random")] = "fresh"
    draws: Count | None = None
    source_seed: Annotated[Seed | None, Flag("--transfer-from")] = None

    def __post_init__(self) -> None:
        """Check every field, and read the budget."""
        super().__post_init__()
        if self.budget is not None:
            evaluations = Budget.read(self.budget).evaluations
            object.__setattr__(self, "budget", evaluations or str(self.budget).strip())

    @property
    def seconds(self) -> float | None:
        """The time that a session may take, where the budget is one."""
        return None if self.budget is None else Budget.read(self.budget).seconds

    @property
    def attack_name(self) -> str:
        """The attack that is run: what `auto` means beside the other settings."""
        return chosen_attack(
            self.attack,
            self.all_attack_options,
            is_paper=self.protocol == "paper",
            is_moved=self.source_seed is not None,
        )

    @property
    def all_attack_options(self) -> Mapping[str, Any]:
        """The options of the attack, its budget among them.

        Raises:
            BadInput: for a budget that is given twice.
        """
        own = {"budget": self.budget} if isinstance(self.budget, int) else {}
        for key in own.keys() & self.attack_options.keys():
            raise BadInput(f"attack option {key}", "is given a second time", "keep --budget alone")
        return {**self.attack_options, **own}
