"""A plain SLURM script for a sweep: an array of shards that requeues itself, without a package."""

import shlex
from pathlib import Path

from advpure.base.storage import atomic_path
from advpure.sweeps.on_slurm import SlurmOptions

_SCRIPT = """\
#!/bin/sh
#SBATCH --job-name=advpure
#SBATCH --array=1-{tasks}
#SBATCH --time={minutes}
#SBATCH --cpus-per-task={cpus}
{more}#SBATCH --requeue
#SBATCH --signal=B:TERM@120
#SBATCH --open-mode=append
#SBATCH --output=advpure-%A-%a.log
# Each task computes every {tasks}-th point. Two minutes before its time is over it is told so,
# stops with everything kept, and is queued again; a task that finds its points done ends at once.
export OMP_NUM_THREADS={cpus}
{command} --shard "$SLURM_ARRAY_TASK_ID/{tasks}" --jobs 1 --threads {cpus} &
child=$!
trap 'kill -TERM "$child"; wait "$child"; scontrol requeue "$SLURM_JOB_ID"; exit 0' TERM
wait "$child"
"""


def array_script(command: list[str], tasks: int, options: SlurmOptions) -> str:
    """Return the script of an array job.

    Args:
        command: The sweep's command, without shard, jobs and threads.
        tasks: Shards, 1 or more.
        options: What each task asks for.

    Example:
        >>> script = array_script(["advpure", "sweep", "law.yaml"], 8, SlurmOptions(gpus=1))
        >>> [line for line in script.splitlines() if "array" in line or "gpus" in line]
        ['#SBATCH --array=1-8', '#SBATCH --gpus=1']
    """
    asked = {
        "gpus": options.gpus or None,
        "mem": options.memory_gb and f"{options.memory_gb}G",
        "partition": options.partition,
        "account": options.account,
    }
    more = "".join(f"#SBATCH --{name}={value}\n" for name, value in asked.items() if value)
    return _SCRIPT.format(
        tasks=tasks,
        minutes=options.minutes,
        cpus=options.cpus,
        more=more,
        command=shlex.join(command),
    )


def write_array(path: str | Path, command: list[str], tasks: int, options: SlurmOptions) -> Path:
    """Write the script of an array job to a file.

    Raises:
        StorageFull: when there is no room.
    """
    path = Path(path)
    with atomic_path(path) as scratch:
        scratch.write_text(array_script(command, tasks, options))
    path.chmod(0o755)
    return path
