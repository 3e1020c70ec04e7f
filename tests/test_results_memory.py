"""Many masks of a large photo take the memory of a few, through every export that can stream."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

# The promise is 300 masks of 12 megapixels under 1 GB. Here 40 masks of 1.3 megapixels, 52 MB as bytes and 208 MB as floats, must take less
# than the bytes, whatever is written; in a process of its own, warmed up, so that nothing else is counted.
SCRIPT = """
import json, sys, threading, time
import numpy as np, psutil
from promptseg import Masks, Text
size, count = (1000, 1300), 40
random = np.random.default_rng(0)
blobs, edges = np.kron(random.normal(size=(count, 4, 5)), np.ones((6, 6))), random.normal(size=(count, 24, 30))  # with ragged outlines
logits = (blobs + 0.5 * edges - 1).astype(np.float32)
result = Masks.from_logits(logits, size, [Text(str(index)) for index in range(count)], photo=np.zeros((*size, 3), np.uint8))
exports = {
    "facts": lambda masks: masks.scores,
    "save": lambda masks: masks.save(sys.argv[1], "overlay,png,coco,geojson,yolo,npz"),
    "png": lambda masks: masks.to_png(),
    "coco": lambda masks: masks.to_coco(),
    "geojson": lambda masks: masks.to_geojson(),
    "yolo": lambda masks: masks.to_yolo(),
    "hf": lambda masks: [entry["mask"].getbbox() for entry in masks.to_hf()],
}
process, found = psutil.Process(), {}
for name, export in exports.items():
    export(result[:1])
    peak, done, base = 0, False, process.memory_info().rss
    def watch():
        global peak
        while not done:
            peak = max(peak, process.memory_info().rss)
            time.sleep(0.002)
    watcher = threading.Thread(target=watch)
    watcher.start()
    kept = export(result)
    done = True
    watcher.join()
    found[name] = (peak - base) / 1e6
print(json.dumps(found))
"""


def _peaks(folder: Path) -> dict[str, float]:
    """MB that each export took at its highest."""
    output = subprocess.run([sys.executable, "-c", SCRIPT, str(folder)], capture_output=True, text=True, check=True).stdout
    return dict(json.loads(output))


def test_exports_stream(tmp_path: Path) -> None:
    # what the allocator keeps for itself differs from run to run and only ever adds: the smallest of up to three runs counts
    least = _peaks(tmp_path / "0")
    for attempt in ("1", "2"):
        if max(least.values()) >= 45:
            least = {export: min(peak, least[export]) for export, peak in _peaks(tmp_path / attempt).items()}
    assert max(least.values()) < 45, least
