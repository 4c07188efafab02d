"""The end of a process that something keeps."""

import subprocess
import sys

import pytest

KEEPS = {
    "a thread that is no daemon": "threading.Thread(target=time.sleep, args=(600,)).start()",
    "a function that does not return": "time.sleep(600)",
}


@pytest.mark.parametrize("keeps", KEEPS.values(), ids=KEEPS.keys())
def test_a_process_that_something_keeps_ends_with_one_line_and_its_status(keeps):
    code = (
        "import threading, time; from astrocyte.pipeline.stopping import end_after;"
        f"end_after(0.1, 'it ends', 3); {keeps}"
    )
    ended = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=30)
    assert (ended.returncode, ended.stderr) == (3, "it ends\n")
