"""Jobs of a sweep on a Ray cluster: the one of this machine, or one at an address."""

from concurrent.futures import BrokenExecutor, Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge

from advpure.base.extras import optional
from advpure.base.kinds import Natural
from advpure.base.validation import validate
from advpure.runs.records import StorageFull
from advpure.sweeps.executors import Job, compute
from advpure.sweeps.index import Attempt


@dataclass(frozen=True, kw_only=True)
class RayOptions:
    """What is asked of the cluster.

    Attributes:
        address: Address of a running cluster, auto for one that this machine belongs to. Default:
            one of this machine, which ends with the sweep.
        cpus: Processor cores of each job.
        gpus: Graphics cards of each job; a fraction shares one.
    """

    address: str | None = None
    cpus: Natural = 1
    gpus: Annotated[float, Ge(0)] = 0.0

    def __post_init__(self) -> None:
        """Check every field."""
        validate(self)


class Landing(Future[Attempt]):
    """The attempt of a job, fetched from the cluster when it is asked for."""

    def __init__(self, reference: Any) -> None:
        """Watch a submitted task."""
        super().__init__()
        self.reference = reference

    def done(self) -> bool:
        """Return whether the task has ended, in whatever way."""
        import ray

        ready, _ = ray.wait([self.reference], timeout=0)
        return bool(ready)

    def result(self, timeout: float | None = None) -> Attempt:
        """Return the attempt.

        Raises:
            BrokenExecutor: when its worker or node died.
            StorageFull: when there was no room.
        """
        import ray

        try:
            outcome: Attempt | StorageFull = ray.get(self.reference)
        except ray.exceptions.RayError as error:
            raise BrokenExecutor(f"{type(error).__name__}: {str(error).splitlines()[0]}") from None
        if isinstance(outcome, StorageFull):
            raise outcome
        return outcome


def _attempt(job: Job) -> Attempt | StorageFull:
    try:
        return compute(job)
    except StorageFull as full:
        return full


class OnRay:
    """Computes jobs as remote tasks, `slots` at once; the session repeats one that is lost."""

    def __init__(self, slots: int, options: RayOptions | None = None) -> None:
        """Join the cluster, or begin one on this machine.

        Raises:
            MissingExtra: when Ray is not installed.
            BadInput: when it cannot be imported.
        """
        with optional("ray", "cluster"):
            import ray
        options = options or RayOptions()
        self.slots, self._references = slots, list[Any]()
        ray.init(
            address=options.address,
            num_cpus=None if options.address else slots * options.cpus,
            include_dashboard=None if options.address else False,
            log_to_driver=False,
            configure_logging=False,
            ignore_reinit_error=True,
        )
        self._remote = ray.remote(
            num_cpus=options.cpus, num_gpus=options.gpus, max_retries=0, max_calls=0
        )(_attempt)

    def submit(self, job: Job) -> Landing:
        """Send a job."""
        sent = replace(job, folder=Path.cwd() / job.folder)
        reference = self._remote.remote(sent)
        self._references.append(reference)
        return Landing(reference)

    def stop(self) -> None:
        """Cancel what still runs, and leave the cluster."""
        import ray

        for reference in self._references:
            ray.cancel(reference, force=True)
        ray.shutdown()
