"""Memory of inference alone: `python -m tests.bench.models._peak MODEL SEQUENCE TABLE` in a fresh process.

Prints MB of resident memory at most, after 1,000 windows; without MODEL, what Python, NumPy and ONNX Runtime take.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort

WINDOWS, STEPS = 1000, 11


def main() -> int:
    if len(sys.argv) > 1:
        path, sequence, table = sys.argv[1:]
        rng = np.random.default_rng(1)
        rows = rng.random((WINDOWS, int(table)), np.float32)
        model = Path(path).read_bytes()
        if model.startswith(b"tree\n"):
            from ids_plugin.scoring.lightgbm import Trees

            Trees(model).probabilities(rows)
        else:
            steps = rng.random((WINDOWS, STEPS, int(sequence)), np.float32)
            given = {"steps": steps, "mask": np.ones((WINDOWS, STEPS), np.bool_), "table": rows}
            _run(model, given)
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
    print(json.dumps(round(peak / 1024, 1)))
    return 0


def _run(model: bytes, given: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]) -> None:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    session.run(["probability"], {one.name: given[one.name] for one in session.get_inputs()})


if __name__ == "__main__":
    sys.exit(main())
