"""The image runs without root and without a compiler, and its build finds every file that it copies."""

import fnmatch
import re
import tomllib
from pathlib import Path

from astrocyte.pipeline.settings import Settings

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docker" / "Dockerfile").read_text()
INSTRUCTIONS = {
    "FROM", "RUN", "COPY", "ENV", "USER", "WORKDIR", "VOLUME", "ENTRYPOINT", "CMD", "EXPOSE", "LABEL", "ARG",
    "HEALTHCHECK", "STOPSIGNAL", "SHELL", "ADD", "ONBUILD",
}  # fmt: skip


def instructions(text: str) -> list[tuple[str, str]]:
    """Name and rest of each instruction, lines joined, remarks left out."""
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n\s*", "", lines)
    return [(line.partition(" ")[0], line.partition(" ")[2].strip()) for line in joined.splitlines() if line.strip()]


ALL = instructions(TEXT)
STARTS = [number for number, (name, _) in enumerate(ALL) if name == "FROM"]
BUILD, FINAL = ALL[STARTS[0] : STARTS[1]], ALL[STARTS[1] :]


def environment(stage: list[tuple[str, str]]) -> dict[str, str]:
    pairs = (pair for name, rest in stage if name == "ENV" for pair in rest.split())
    return dict(pair.split("=", 1) for pair in pairs)


def rest_of(stage: list[tuple[str, str]], wanted: str) -> list[str]:
    return [rest for name, rest in stage if name == wanted]


def test_every_instruction_is_one_and_there_are_two_stages():
    assert {name for name, _ in ALL} <= INSTRUCTIONS
    assert len(STARTS) == 2
    assert "ADD" not in {name for name, _ in ALL}


def test_the_base_has_a_version():
    for rest in rest_of(ALL, "FROM"):
        image = rest.split()[0]
        assert ":" in image
        assert not image.endswith(":latest")


def test_the_last_user_is_a_number_and_not_root():
    user = rest_of(FINAL, "USER")
    assert user == ["10001:10001"]
    (made,) = [rest for name, rest in FINAL if name == "RUN" and "useradd" in rest]
    assert "--uid 10001" in made


def test_nothing_is_compiled_or_installed_in_the_final_stage():
    run = " ".join(rest_of(FINAL, "RUN"))
    assert not re.search(r"\b(apt|apt-get|pip|gcc|g\+\+|make|build-essential|curl|wget)\b", run)
    assert rest_of(FINAL, "COPY") == ["--from=build /opt/astrocyte /opt/astrocyte"]


def test_the_folders_that_are_written_to_belong_to_the_user():
    variables = environment(FINAL)
    data = rest_of(FINAL, "WORKDIR")[0]
    assert rest_of(FINAL, "VOLUME") == [f'["{data}"]']
    settings = [name for name in variables if name.startswith("ASTROCYTE_")]
    assert {"ASTROCYTE_DATA_DIR", "ASTROCYTE_INFLUX_DIR"} == set(settings)
    assert all(name.removeprefix("ASTROCYTE_").lower() in Settings.model_fields for name in settings)
    assert all(variables[name].startswith(f"{data}/") for name in settings)
    (made,) = [rest for name, rest in FINAL if name == "RUN" and "useradd" in rest]
    assert f"--home-dir {data} --create-home" in made
    assert "install --directory --owner=10001 --group=10001 /var/cache/astrocyte" in made
    for name in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME"):
        # Outside the volume: what is mounted there would hide the compiled kernels.
        assert variables[name].startswith("/var/cache/astrocyte")


def test_kernels_are_compiled_by_the_user_that_runs_them():
    names = [name for name, _ in FINAL]
    warm = FINAL.index(("RUN", '["python", "-m", "astrocyte.agents.warm"]'))
    assert warm > names.index("USER") > names.index("ENV")


def ignored(path: str) -> bool:
    rules = (ROOT / ".dockerignore").read_text().split()
    return any(fnmatch.fnmatch(path, rule.removeprefix("**/")) for rule in rules)


def test_what_is_copied_is_there_and_not_ignored():
    for rest in rest_of(BUILD, "COPY"):
        for source in rest.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert not ignored(source), source


def test_the_sources_are_the_folders_that_the_package_links_to():
    links = {path.name for path in (ROOT / "astrocyte").iterdir() if path.is_symlink() and path.is_dir()}
    copied = {rest.split()[0] for rest in rest_of(BUILD, "COPY") if "/" in rest.split()[-1]}
    assert links <= copied


def test_the_extras_exist_and_versions_are_those_of_the_lock():
    (install,) = [rest for name, rest in BUILD if name == "RUN" and "--constraint requirements.lock" in rest]
    extras = re.search(r"\.\[([\w,]+)\]", install)
    assert extras is not None
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(extras[1].split(",")) <= set(known)
    assert all("--no-cache-dir" in rest for name, rest in BUILD if "pip install" in rest)
