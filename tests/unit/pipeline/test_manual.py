"""``--help`` is a manual page: complete, plain, and not cut; its examples are commands that exist."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from shutil import which
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from astrocyte.pipeline.cli import manual
from astrocyte.pipeline.cli.app import app


def every(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    for name, each in getattr(command, "commands", {}).items():
        yield from every(each, (*path, name))


COMMANDS = dict(every(get_command(app)))
NAMES = [" ".join(path) for path in COMMANDS]


def page(name: str, columns: int) -> str:
    done = CliRunner().invoke(app, [*name.split(), "--help"], env={"COLUMNS": str(columns)}, catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


@pytest.mark.parametrize("name", NAMES)
def test_a_page_names_every_option_in_a_narrow_terminal_and_cuts_nothing(name):
    narrow = page(name, 40)
    command = COMMANDS[tuple(name.split())]
    for option in (option for param in command.params for option in param.opts if option.startswith("-")):
        assert re.search(rf"^ +(?:.*, )?{re.escape(option)}\b", narrow, re.MULTILINE), option
    long = [line for line in narrow.partition("EXAMPLES")[0].splitlines() if len(line) > 40 and " " in line.strip()]
    assert long == []
    assert not re.search(r"…|<\w+>|<list|\x1b", narrow)
    assert "{" not in narrow.partition("SYNOPSIS")[2].partition("\n\n")[0]


def test_the_parts_of_a_page_come_in_the_order_of_a_manual():
    headings = [line for line in page("match", 80).splitlines() if line.isupper() and not line.startswith(" ")]
    assert headings == ["NAME", "SYNOPSIS", "DESCRIPTION", "ARGUMENTS", "OPTIONS", "EXAMPLES"]
    assert "    astrocyte match [OPTIONS] RULES FILE...\n" in page("match", 80)


def test_the_first_page_lists_every_command_with_what_it_does():
    shown = page("", 80)
    for path in COMMANDS:
        if len(path) == 1:
            assert re.search(rf"^    {path[0]} +\S", shown, re.MULTILINE)


@pytest.mark.parametrize("name", manual._EXAMPLES)
def test_an_example_is_a_command_with_options_that_exist(name):
    assert tuple(name.split()) in COMMANDS
    for line in manual._EXAMPLES[name]:
        words = shlex.split(line.partition(" > ~")[0])[1:]
        used = name.split() or words[:1]
        assert words[: len(used)] == used
        known = {option for param in COMMANDS[tuple(used)].params for option in param.opts}
        assert {word for word in words if word.startswith("-")} <= known


@pytest.mark.skipif(which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize(
    ("words", "number", "found"),
    [
        ("astrocyte ba", 1, ["backtest"]),
        ("astrocyte demo --se", 2, ["--seconds", "--seed"]),
        ("astrocyte simulate ax", 2, ["axons"]),
        ("astrocyte demo --scenario ker", 3, ["kernels"]),
        ("astrocyte bench wor", 2, ["worlds"]),
        ("astrocyte worker --role correlate,re", 3, ["correlate,repartition"]),
        ("astrocyte rules check ce", 3, ["cells"]),
        ("astrocyte study con", 2, ["control"]),
    ],
)
def test_bash_completes_commands_options_and_names(tmp_path, words, number, found):
    program = tmp_path / "astrocyte"
    program.write_text(f"#!{sys.executable}\nfrom astrocyte.pipeline.cli.app import main\nmain()\n")
    program.chmod(0o755)
    script = f"""
        source <(astrocyte completion bash)
        COMP_WORDS=({words}) COMP_CWORD={number}
        _astrocyte_completion astrocyte
        echo "${{COMPREPLY[@]}}"
    """
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == found


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell_is_valid_where_the_shell_is_installed(shell):
    script = CliRunner().invoke(app, ["completion", shell], catch_exceptions=False).stdout
    assert "_ASTROCYTE_COMPLETE=complete_" + shell in script
    if which(shell) is not None:
        check = "--no-execute" if shell == "fish" else "-n"
        subprocess.run([shell, check], input=script, text=True, check=True)


@pytest.mark.parametrize(
    ("shell", "variables"),
    [
        ("zsh", {"_TYPER_COMPLETE_ARGS": "astrocyte ba"}),
        ("fish", {"_TYPER_COMPLETE_ARGS": "astrocyte ba", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}),
    ],
)
def test_zsh_and_fish_get_an_answer(shell, variables):
    command = "from astrocyte.pipeline.cli.app import main; import sys; sys.argv = ['astrocyte']; main()"
    environment = os.environ | variables | {"_ASTROCYTE_COMPLETE": f"complete_{shell}"}
    done = subprocess.run([sys.executable, "-c", command], env=environment, capture_output=True, text=True, check=False)
    assert "backtest" in done.stdout


def test_the_version_is_that_of_the_package():
    from importlib.metadata import version

    assert CliRunner().invoke(app, ["--version"]).stdout == f"astrocyte {version('astrocyte')}\n"
