"""A worker that cannot start says why in one line."""

import subprocess
import sys

PLUGIN = """
from astrocyte import register_sink
register_sink("needy", lambda context: context.require("url"), records=("alerts",))
"""


def test_a_sink_without_its_setting_ends_the_worker_with_one_line(tmp_path):
    (tmp_path / "needy_sink.py").write_text(PLUGIN)
    command = [sys.executable, "-c", "from astrocyte.pipeline.cli.app import main; main()", "worker", "--role", "needy"]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "ASTROCYTE_PLUGINS": "needy_sink"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("astrocyte: sink 'needy' needs the setting 'url'; set ASTROCYTE_NEEDY_URL")
