"""What every benchmark needs: fair timing of two rivals in one process, the machine's own speed, peak memory, and the JSON form."""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import platform
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from torch.utils.flop_counter import FlopCounterMode

Work = Callable[[], Any]
Clock = Callable[[], float]


@dataclass(frozen=True)
class Row:
    """One line of a benchmark; None where there is no peer. Shares are of the measured rate of large matrix products."""

    work: str
    ours_s: float
    peer: str | None = None
    peer_s: float | None = None
    ratio: float | None = None
    max_difference: float | None = None
    ours_gemm_share: float | None = None
    peer_gemm_share: float | None = None
    ours_peak_mb: float | None = None
    peer_peak_mb: float | None = None
    mask_iou: float | None = None
    same_labels: float | None = None  # share of pixels


@dataclass(frozen=True)
class Trial:
    """One untimed run: what it returned, its floating point operations, and the memory that it needed above what was resident, in MB."""

    result: Any
    flops: float
    peak_mb: float


def trial(work: Work) -> Trial:
    """The first run of a rival, which also pays for set-up."""
    with _watched() as peak, FlopCounterMode(display=False, custom_mapping=_ATTENTION) as counter:
        result = work()
    return Trial(result, float(counter.get_total_flops()), peak[0])


def in_turn(ours: Work, peer: Work, rounds: int, clock: Clock = time.perf_counter) -> tuple[float, float]:
    """Median seconds of both, timed alternately, so that whatever else the machine does disturbs both alike. Run each once before."""
    times = [(seconds(ours, clock), seconds(peer, clock)) for _ in range(rounds)]
    return statistics.median(own for own, _ in times), statistics.median(other for _, other in times)


def seconds(work: Work, clock: Clock = time.perf_counter) -> float:
    """Seconds of one run."""
    start = clock()
    work()
    return clock() - start


def gemm_rate(dtype: torch.dtype = torch.float32, size: int = 1536, rounds: int = 7, clock: Clock = time.perf_counter) -> float:
    """Best floating point operations per second of a square matrix product."""
    a, b = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
    a @ b
    fastest: float = min(seconds(lambda: a @ b, clock) for _ in range(rounds))
    return 2.0 * size * size * size / fastest


def _attention_flops(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Two products; torch counts fused attention on GPUs only."""
    batch, heads, tokens, width = query
    return 2 * int(batch * heads * tokens * key[2]) * int(width + value[3])


_ATTENTION = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}


def peak_mb(work: Work) -> float:
    """Highest resident memory during one run, in MB above what was resident before."""
    with _watched() as peak:
        work()
    return peak[0]


@contextmanager
def _watched() -> Iterator[list[float]]:
    """Highest resident memory while the context lasts, in MB above what was resident before; known when it ends."""
    process, stop, peak = psutil.Process(), threading.Event(), [0.0]
    _give_back()
    before = process.memory_info().rss

    def watch() -> None:
        while not stop.wait(0.002):
            peak[0] = max(peak[0], (process.memory_info().rss - before) / 1e6)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        stop.set()
        watcher.join()


def peaks_in_turn(ours: Work, peer: Work, rounds: int) -> tuple[float, float]:
    """Median of the highest resident memory of both in MB, as in `peak_mb`, in runs that alternate: what a library sets aside at its first
    run then counts for neither.
    """
    peaks = [(peak_mb(ours), peak_mb(peer)) for _ in range(rounds)]
    return statistics.median(own for own, _ in peaks), statistics.median(other for _, other in peaks)


def _give_back() -> None:
    """Return what earlier runs have freed to the system; memory that the allocator kept of them would be used again unseen."""
    gc.collect()
    with suppress(OSError, AttributeError, TypeError):  # only GNU's C library has it
        ctypes.CDLL(None).malloc_trim(0)


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "processor": platform.processor() or platform.machine(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "load": psutil.getloadavg()[0],
        "torch": torch.__version__,
        "float32_gflops": round(gemm_rate() / 1e9, 1),
        "bfloat16_gflops": round(gemm_rate(torch.bfloat16) / 1e9, 1),
    }


def parser(description: str) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options.add_argument("--rounds", type=int, default=5, help="timed runs of each, alternately")
    return options


def report(facts: dict[str, Any], rows: list[Row], path: Path | None) -> None:
    """Print a table and write the JSON form."""
    print(", ".join(f"{key} {value}" for key, value in facts.items()))
    for row in rows:
        print(_line(row))
    if path is not None:
        path.write_text(json.dumps({"machine": facts, "rows": [asdict(row) for row in rows]}, indent=1) + "\n", encoding="utf-8")


def _line(row: Row) -> str:
    parts = [f"{row.work:<28} {row.ours_s * 1e3:8.0f} ms"]
    if row.peer_s is not None and row.ratio is not None:
        parts.append(f"{row.peer} {row.peer_s * 1e3:8.0f} ms, {row.ratio:5.2f}x")
    if row.max_difference is not None:
        parts.append(f"largest difference {row.max_difference:.1e}")
    if row.ours_gemm_share is not None:
        parts.append(f"of the matrix-product rate {_both(row.ours_gemm_share, row.peer_gemm_share, '.0%')}")
    if row.ours_peak_mb is not None:
        parts.append(f"peak {_both(row.ours_peak_mb, row.peer_peak_mb, '.0f')} MB")
    if row.mask_iou is not None:
        parts.append(f"mask IoU {row.mask_iou:.4f}")
    if row.same_labels is not None:
        parts.append(f"same labels {row.same_labels:.2%}")
    return "; ".join(parts)


def _both(ours: float, peer: float | None, form: str) -> str:
    return " / ".join(format(value, form) for value in (ours, peer) if value is not None)
