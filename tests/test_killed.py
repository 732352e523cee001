"""Whenever a run is killed, nothing is lost, nothing is partial, and the next run makes it good.

`SPEAKUP_KILLS=1000 pytest -q -s tests/test_killed.py` kills more often, and `SPEAKUP_KILLS_SEED=N`
elsewhere.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = int(os.environ.get("SPEAKUP_KILLS", "6"))
SEED = int(os.environ.get("SPEAKUP_KILLS_SEED", "1"))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="traces system calls as Linux has it")
def test_a_run_killed_at_any_system_call_is_made_good_by_the_next(tmp_path: Path) -> None:
    here = Path(__file__).resolve().parent
    done = subprocess.run(
        [sys.executable, str(here / "killed.py"), str(KILLS), str(SEED)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(here.parent), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120 + 60 * KILLS,
    )
    if "Operation not permitted" in done.stderr:
        pytest.skip("tracing is not permitted here")
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
