"""How many processors this process may use."""

import os


def cores() -> int:
    """Those that the system lets this process use; at least 1."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux: those of a container or a job of Slurm
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1
