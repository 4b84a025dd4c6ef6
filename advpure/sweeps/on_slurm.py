"""Jobs of a sweep on a SLURM cluster, through submitit.

Every job is one SLURM job of one process. It computes into its own run folder, which lies on a
file system that all nodes see, and no two processes ever write one file of records. A job whose
node is lost or that is preempted begins again and goes on where its records end; submitit requeues
one whose time is over in the same way.
"""

from concurrent.futures import BrokenExecutor, Future
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge

from advpure.base.errors import BadInput
from advpure.base.extras import optional
from advpure.base.kinds import Natural, Whole
from advpure.base.validation import name, validate
from advpure.runs.records import StorageFull
from advpure.sweeps.executors import Job, compute
from advpure.sweeps.index import Attempt

if TYPE_CHECKING:
    from submitit import Job as Submitted
    from submitit.helpers import DelayedSubmission

LOGS = "slurm"
"""Folder of the scripts and logs of the jobs, below that of the runs."""


@dataclass(frozen=True, kw_only=True)
class SlurmOptions:
    """What is asked of the cluster for each job.

    Attributes:
        minutes: Time limit; a job that needs longer is requeued and goes on.
        cpus: Processor cores.
        gpus: Graphics cards.
        memory_gb: Memory in GiB. Default: the cluster's.
        partition: Partition. Default: the cluster's.
        account: Account to charge. Default: the user's.
        requeues: How often a job whose time is over begins again.
        cluster: slurm, or local to run the same jobs in processes of this machine.
    """

    minutes: Natural = 60
    cpus: Natural = 1
    gpus: Whole = 0
    memory_gb: Annotated[int, Ge(1)] | None = None
    partition: str | None = None
    account: str | None = None
    requeues: Whole = 10
    cluster: Literal["slurm", "local"] = "slurm"

    def __post_init__(self) -> None:
        """Check every field."""
        validate(self)
        for each in ("partition", "account"):
            if getattr(self, each) is not None:
                name(getattr(self, each), each)


class Computing:
    """The function that a node runs: it can be sent, and begins again where it was stopped."""

    def __call__(self, job: Job) -> Attempt | StorageFull:
        """Compute a job; an exception of the disk comes back as a value, whole."""
        try:
            return compute(job)
        except StorageFull as full:
            return full

    def checkpoint(self, job: Job) -> "DelayedSubmission":
        """Return what to submit again when time is over: the same, as the records know the rest."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, job)


class Landing(Future[Attempt]):
    """The attempt of a job on the cluster, read from submitit when it is asked for."""

    def __init__(self, submitted: "Submitted[Attempt | StorageFull]") -> None:
        """Watch a submitted job."""
        super().__init__()
        self.submitted = submitted

    def done(self) -> bool:
        """Return whether the job has ended, in whatever way."""
        return self.submitted.done()

    def result(self, timeout: float | None = None) -> Attempt:
        """Return the attempt.

        Raises:
            BrokenExecutor: when the job ended without a result, with SLURM's state of it.
            StorageFull: when there was no room.
        """
        from submitit.core.utils import FailedJobError, UncompletedJobError

        try:
            (outcome,) = self.submitted.results()
        except (FailedJobError, UncompletedJobError) as error:
            where = f"job {self.submitted.job_id} ({self.submitted.state})"
            raise BrokenExecutor(f"{where}: {str(error).splitlines()[0]}") from None
        if isinstance(outcome, StorageFull):
            raise outcome
        return outcome


class Slurm:
    """Computes jobs on a cluster, `slots` of them submitted at once."""

    def __init__(self, root: Path, slots: int, options: SlurmOptions | None = None) -> None:
        """Prepare to submit.

        Args:
            root: The folder of the run folders, seen by all nodes.
            slots: Jobs that wait or run at once.
            options: What to ask for.

        Raises:
            MissingExtra: when submitit is not installed.
            BadInput: when it cannot be imported.
        """
        with optional("submitit", "cluster"):
            import submitit
        options = options or SlurmOptions()
        self.slots = slots
        self._jobs: list[Submitted[Any]] = []
        try:
            self._executor = submitit.AutoExecutor(
                root / LOGS,
                cluster=options.cluster,
                slurm_max_num_timeout=options.requeues,
                local_max_num_timeout=options.requeues,
            )
        except RuntimeError as error:  # how submitit says that there is no srun
            fix = "start it where srun is, or leave out --on slurm"
            raise BadInput("--on slurm", f"finds no cluster ({error})", fix) from None
        asked = {
            "slurm_partition": options.partition,
            "slurm_account": options.account,
            "mem_gb": options.memory_gb,
        }
        self._executor.update_parameters(
            name="advpure",
            timeout_min=options.minutes,
            cpus_per_task=options.cpus,
            gpus_per_node=options.gpus,
            tasks_per_node=1,
            **{name: value for name, value in asked.items() if value is not None},
        )

    def submit(self, job: Job) -> Landing:
        """Submit a job; its folder is named from where the node can find it."""
        sent = replace(job, folder=Path.cwd() / job.folder)
        submitted = self._executor.submit(Computing(), sent)
        self._jobs.append(submitted)
        return Landing(submitted)

    def stop(self) -> None:
        """Cancel what waits or runs."""
        for submitted in self._jobs:
            if not submitted.done():
                with suppress(Exception):  # it may have ended meanwhile
                    submitted.cancel(check=False)
