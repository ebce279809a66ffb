"""Peak memory of a case, measured in a process of its own."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path


def peak_of(module: str, name: str, batch_size: int, steps: int) -> int:
    """Peak bytes of a case: `python -m MODULE --memory-of NAME` calls `print_peak`."""
    command = [sys.executable, "-m", module, "--memory-of", name]
    command += ["--batch-size", str(batch_size), "--steps", str(steps)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return int(json.loads(output.splitlines()[-1])["peak"])


def print_peak(make: Callable[[], Callable[[], object]]) -> None:
    """Print the peak bytes of model, optimizer state and steps: what the process needs beyond its imports.

    Args:
        make: builds the model and returns the case, which takes some steps.
    """
    before = memory("VmRSS")
    case = make()
    case()
    # Reset the peak, which includes loading the weights.
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    case()
    print(json.dumps({"peak": memory("VmHWM") - before}))


def memory(key: str) -> int:
    """Bytes of this process by a key of /proc/self/status: VmRSS now, VmHWM at the peak. `ru_maxrss` starts from the parent's memory."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith(f"{key}:")))
