"""The count behind --patience, validations since the best one: fairseq keeps it on a function and does not save it."""

import sys

KEY = "patience"  # in a checkpoint's extra_state


def remember(extra_state: dict) -> None:
    """Put the count into what is about to be saved."""
    for function in _functions():
        if hasattr(function, "best"):
            extra_state[KEY] = {"best": float(function.best), "num_runs": int(function.num_runs)}


def restore(extra_state: dict) -> None:
    """Give fairseq the count that a checkpoint holds."""
    for function in _functions():
        for name, value in extra_state.get(KEY, {}).items():
            setattr(function, name, value)


def is_spent(extra_state: dict, patience: int) -> bool:
    """Return whether a run with this ``--patience`` (0 or less: none) had stopped when the checkpoint was saved."""
    return 0 < patience <= extra_state.get(KEY, {}).get("num_runs", 0)


def _functions() -> list:
    """Return fairseq's should_stop_early; under ``python -m fairseq_cli.train`` it belongs to ``__main__``."""
    modules = (sys.modules.get(name) for name in ("__main__", "fairseq_cli.train"))
    return [module.should_stop_early for module in modules if hasattr(module, "should_stop_early")]
