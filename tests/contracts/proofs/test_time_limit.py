"""The time limit of verify leaves nothing behind: not in the thread, not in the interpreter."""

from ...helpers.forked import Forks

PROFILED_AFTERWARDS = """
import cProfile, time
from towers.contracts.proofs import time_limit

time_limit.GRACE = 0.05
for seconds, work in ((5, 0), (0.01, 0.03), (0.01, 5)):  # in time; late, not yet interrupted; interrupted
    try:
        with time_limit.time_limit(seconds):
            end = time.perf_counter() + work
            while time.perf_counter() < end:
                pass
        print("ended")
    except time_limit.OutOfTime:
        print("out of time")
    profile = cProfile.Profile()
    profile.runcall(sum, (abs(number) for number in range(1000)))
    print(profile.getstats() != [])
"""


def test_a_profiler_runs_after_it(forks: Forks):
    """CPython 3.11 looks for ever for an interruption that was taken back, once a profiler runs."""
    run = forks.run([forks.python, "-c", PROFILED_AFTERWARDS])
    assert run.stdout.split("\n") == ["ended", "True", "ended", "True", "out of time", "True", ""], run.stderr
