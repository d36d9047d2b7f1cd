"""The program ``lambda-bert``: sets what torch reads when it is loaded, then runs :mod:`fairseq_lambda.commands`.

It is outside the package, because importing the package loads fairseq and torch.
"""

import os

WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "5000"}


def waiting() -> dict[str, str]:
    """Return variables that make OpenMP's threads spin only briefly while they wait; {} if OMP_WAIT_POLICY is set.

    If they spin for long and another process is running, they hold the cores that the late threads need. If they sleep
    at once, waking them takes time at every barrier (benchmarks/speed/busy_neighbour.py).
    """
    if "OMP_WAIT_POLICY" in os.environ:
        return {}
    return {name: os.environ.get(name, value) for name, value in WAITING.items()}


def main() -> None:
    os.environ.update(waiting())
    from fairseq_lambda.commands.__main__ import main as run

    run()


if __name__ == "__main__":
    main()
