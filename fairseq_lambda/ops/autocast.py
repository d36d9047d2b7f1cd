"""What autocast is doing, on any device: some, such as meta, do not know it, and torch's own functions raise there."""

import contextlib

import torch


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """Return the dtype that autocast computes in on ``device``, or None where it is off."""
    if torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type):
        return torch.get_autocast_dtype(device.type)
    return None


def without_autocast(device: torch.device) -> contextlib.AbstractContextManager:
    """Return a context in which results have the dtype of their inputs. Where autocast is off, it does nothing."""
    off = autocast_dtype(device) is None  # exporters would record a switch
    return contextlib.nullcontext() if off else torch.autocast(device.type, enabled=False)
