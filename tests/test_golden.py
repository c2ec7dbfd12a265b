"""Files of earlier versions decode to the same symbols, on every machine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent / "golden"
EXPECTED = json.loads((GOLDEN / "golden.json").read_text())
PRINT_HASH = (
    "import sys, torch; from pathlib import Path; sys.path.insert(0, sys.argv[1]);"
    "torch.backends.mkldnn.enabled = sys.argv[4] == 'onednn';"
    "from regenerate import hash_of_symbols; print(hash_of_symbols(Path(sys.argv[2]), Path(sys.argv[3])))"
)


@pytest.mark.parametrize("name", sorted(EXPECTED))
@pytest.mark.parametrize(("threads", "library"), [("1", "onednn"), ("2", "none")])
def test_golden_files_hold_their_symbols(name: str, threads: str, library: str) -> None:
    """In a process of its own, with another number of threads and with oneDNN on and off."""
    weights = GOLDEN / EXPECTED[name]["weights"]
    command = [sys.executable, "-c", PRINT_HASH, str(GOLDEN), str(GOLDEN / name), str(weights), library]
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert run.stdout.strip() == EXPECTED[name]["symbols"]
