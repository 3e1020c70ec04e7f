"""Reference cases against this package: ``python tests/golden/check.py [--known] PATH...``

Each PATH is a case (its .json or .safetensors) or a folder with cases in it. For every expected tensor and value the largest error is
printed beside its share of the tolerance that the case states. Exit status: 0 all within, 1 something beyond its tolerance (or an error),
2 a kind without a runner; ``--known`` lists such kinds and skips them.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

import runners_catseg
import runners_catseg_parts
import runners_catseg_training
import runners_clip
import runners_clipseg
import runners_clipseg_training
import runners_data
import runners_denseclip
import runners_denseclip_detection
import runners_denseclip_parts
import runners_denseclip_training
import runners_groupvit
import runners_groupvit_training
import runners_metrics
import runners_psalm
import runners_psalm_parts
import runners_psalm_tasks
import runners_psalm_training
import torch
from cases import Case, Check, NotYetError, Results

from promptseg.errors import PromptTruncated

Runner: TypeAlias = Callable[[Case], Results]
RUNNERS: dict[str, Runner] = {
    **runners_catseg.RUNNERS,
    **runners_catseg_parts.RUNNERS,
    **runners_catseg_training.RUNNERS,
    **runners_clip.RUNNERS,
    **runners_clipseg.RUNNERS,
    **runners_clipseg_training.RUNNERS,
    **runners_data.RUNNERS,
    **runners_denseclip.RUNNERS,
    **runners_denseclip_detection.RUNNERS,
    **runners_denseclip_parts.RUNNERS,
    **runners_denseclip_training.RUNNERS,
    **runners_groupvit.RUNNERS,
    **runners_groupvit_training.RUNNERS,
    **runners_metrics.RUNNERS,
    **runners_psalm.RUNNERS,
    **runners_psalm_parts.RUNNERS,
    **runners_psalm_training.RUNNERS,
    **runners_psalm_tasks.RUNNERS,
}
READ_ONLY = ("inventory", "table")  # kinds to look things up in


def run(case: Case) -> list[Check]:
    """Compute a case with this package and compare.

    Raises:
        NotYetError: its kind has no runner, or its variant no network.
    """
    runner = RUNNERS.get(case.kind)
    if runner is None:
        raise NotYetError(f"no runner for {case.kind}")
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", PromptTruncated)  # long texts are cut on purpose here
        return case.compare(runner(case))


def find(paths: Iterable[Path]) -> list[Case]:
    """The cases at the given places, inventories and tables left out."""
    files: list[Path] = []
    for path in paths:
        found = sorted(path.rglob("*.json")) if path.is_dir() else [path.with_suffix(".json")]
        if not found or not all(file.is_file() for file in found):
            raise SystemExit(f"{path} holds no case; give a case's .json file or a folder of cases.")
        files += found
    cases = [Case(file) for file in dict.fromkeys(files)]
    return [case for case in cases if case.kind.rpartition("/")[2] not in READ_ONLY]


def main(arguments: Sequence[str] | None = None) -> int:
    """Check everything that is asked for; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH")
    parser.add_argument("--known", action="store_true", help="skip kinds that have no runner yet, and list them")
    options = parser.parse_args(arguments)
    unknown: dict[str, list[str]] = {}
    failed: list[str] = []
    passed = 0
    for case in find(options.paths):
        start = time.perf_counter()
        try:
            checks = run(case)
        except NotYetError as reason:
            unknown.setdefault(str(reason), []).append(case.path.stem)
            continue
        except Exception:
            traceback.print_exc(file=sys.stdout)
            checks = [Check("run", float("inf"), float("inf"), "raised the error above")]
        _print(case, checks, time.perf_counter() - start)
        if all(check.passed for check in checks):
            passed += 1
        else:
            failed.append(case.path.stem)
    return _summary(passed, failed, unknown, options.known)


def _print(case: Case, checks: Sequence[Check], seconds: float) -> None:
    print(f"{case.kind}  {case.path.stem}  ({seconds:.1f} s)")
    for check in checks:
        verdict = "ok  " if check.passed else "FAIL"
        print(f"  {verdict} {check.name:<44} largest error {check.largest:.2e}, {check.error:.3f} of the tolerance  {check.note}".rstrip())


def _summary(passed: int, failed: Sequence[str], unknown: dict[str, list[str]], known_only: bool) -> int:
    print(f"{passed} cases within tolerance, {len(failed)} beyond{': ' if failed else ''}{', '.join(failed)}")
    for reason, names in unknown.items():
        print(f"  skipped, {reason}: {', '.join(names)}")
    return 1 if failed else 2 if unknown and not known_only else 0


if __name__ == "__main__":
    sys.exit(main())
