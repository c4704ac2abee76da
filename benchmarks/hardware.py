"""Which machine figures are of, and how fast it multiplies."""

from __future__ import annotations

import platform

import torch

from rayfed_hn.machine import seconds_of


def multiply_rate(device: str = "cpu", size: int = 1024) -> float:
    """Floating-point operations a second of a product of square float32 matrices."""
    left, right = (torch.ones(size, size, device=device) for _ in range(2))
    target = torch.empty_like(left)
    return 2 * size**3 / seconds_of(lambda: torch.mm(left, right, out=target), device)


def name_of(device: str) -> str:
    """The name of a GPU, or of a processor."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":")[1].strip() for line in file if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or device
