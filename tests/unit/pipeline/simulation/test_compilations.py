"""Compiled simulations are kept between runs."""

import os
import sys
from pathlib import Path

import pytest

from astrocyte.pipeline.simulation.compilations import is_compiled, keep_compilations, note_compiled

SETTING = "JAX_COMPILATION_CACHE_DIR"


@pytest.fixture
def clean(monkeypatch, tmp_path):
    # JAX reads the setting when it is imported; in this process it has been.
    monkeypatch.setitem(sys.modules, "jax", None)
    monkeypatch.delitem(sys.modules, "jax")
    monkeypatch.delenv(SETTING)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return monkeypatch


def test_the_folder_is_in_the_cache_of_the_user_and_child_processes_inherit_it(clean, tmp_path):
    folder = keep_compilations()
    assert folder is not None
    assert folder.parent == tmp_path / "cache" / "astrocyte"
    assert folder.is_dir()
    assert os.environ[SETTING] == str(folder)


@pytest.mark.parametrize(("given", "expected"), [("/elsewhere", Path("/elsewhere")), ("", None)])
def test_a_setting_of_jax_takes_precedence(clean, tmp_path, given, expected):
    clean.setenv(SETTING, given)
    assert keep_compilations() == expected
    assert not (tmp_path / "cache").exists()


def test_a_home_that_cannot_be_written_to_keeps_nothing(clean, tmp_path):
    (tmp_path / "cache").write_text("a file where a folder would be")
    assert keep_compilations() is None
    assert SETTING not in os.environ


def test_a_world_is_known_as_compiled_by_its_shapes(clean):
    assert not is_compiled("cells", (1024,))
    keep_compilations()
    assert not is_compiled("cells", (1024,))
    note_compiled("cells", (1024,))
    assert is_compiled("cells", (1024,))
    assert not is_compiled("cells", (2048,))
    assert not is_compiled("dna", (1024,))


def test_nothing_is_known_as_compiled_where_nothing_is_kept(clean):
    clean.setenv(SETTING, "")
    note_compiled("cells", (1024,))
    assert not is_compiled("cells", (1024,))
