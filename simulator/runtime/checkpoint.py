"""Checkpoints: the state of a run in one file; a resumed run gives the same bits as an uninterrupted one.

The file is a NumPy archive of every island's arrays and a JSON header. It is written under a temporary name and
renamed, so a crash leaves the previous checkpoint. Bits are the same on the same backend and JAX version; the header
names both.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from astrocyte.schemas.errors import InvalidSettings
from astrocyte.simulator.config import ScenarioConfig
from astrocyte.simulator.runtime.controls import Control
from astrocyte.simulator.scenario import Scenario

__all__ = ["CHECKPOINT_VERSION", "Checkpoint", "CheckpointMismatch", "load_checkpoint", "save_checkpoint"]

CHECKPOINT_VERSION = 1


class CheckpointMismatch(InvalidSettings):
    """A checkpoint of another version, scenario, config or seed, or a file that is not a checkpoint."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Everything a run needs to continue: all events before ``tick`` are written and confirmed."""

    scenario: str
    config: Mapping[str, Any]
    seed: int
    run: str
    tick: int
    sequences: Mapping[str, int]
    memory: Mapping[str, Any]
    controls: Sequence[Control] = ()
    backend: str = ""
    states: Sequence[Any] = field(default=(), repr=False)


def backend() -> str:
    """Backend and version for which results are bit-identical."""
    return f"jax {jax.__version__} on {jax.default_backend()}"


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write the checkpoint; it replaces an older one of that name only once it is complete and on disk."""
    header = {name: value for name, value in _header(checkpoint).items() if name != "states"}
    arrays = {"header": np.frombuffer(json.dumps(header).encode(), np.uint8)}
    for island, state in enumerate(checkpoint.states):
        for where, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
            arrays[f"{island}:{jax.tree_util.keystr(where)}"] = np.asarray(leaf)
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # names are strings; the stub takes them for allow_pickle
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _header(checkpoint: Checkpoint) -> dict[str, Any]:
    names = ("scenario", "config", "seed", "run", "tick", "sequences", "memory")
    header: dict[str, Any] = {name: getattr(checkpoint, name) for name in names}
    header["controls"] = [asdict(control) for control in checkpoint.controls]
    return {"version": CHECKPOINT_VERSION, "backend": backend(), **header}


def load_checkpoint(
    path: Path, scenario: Scenario, config: ScenarioConfig, seed: int, like: Sequence[Any]
) -> Checkpoint:
    """The checkpoint, its states shaped ``like`` those of a fresh world. Raises CheckpointMismatch naming the field."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            header = json.loads(archive["header"].tobytes())
            if header.get("version") != CHECKPOINT_VERSION:
                raise CheckpointMismatch(
                    f"checkpoint {path}: expected version {CHECKPOINT_VERSION}, got {header.get('version')}. "
                    "Resume it with the release that wrote it, or start a new run"
                )
            _compare(path, header, scenario, config, seed)
            states = [_island(path, archive, island, state) for island, state in enumerate(like)]
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise CheckpointMismatch(f"{path} cannot be read as a checkpoint: {error}") from error
    return Checkpoint(
        scenario=header["scenario"],
        config=header["config"],
        seed=header["seed"],
        run=header["run"],
        tick=header["tick"],
        sequences=header["sequences"],
        memory=header["memory"],
        controls=tuple(Control(**control) for control in header["controls"]),
        backend=header["backend"],
        states=states,
    )


def _compare(path: Path, header: Mapping[str, Any], scenario: Scenario, config: ScenarioConfig, seed: int) -> None:
    if header["scenario"] != scenario.name:
        raise CheckpointMismatch(f"checkpoint {path} is of scenario {header['scenario']!r}, not {scenario.name!r}")
    if header["seed"] != seed:
        raise CheckpointMismatch(f"checkpoint {path} is of seed {header['seed']}, not {seed}; resume with its seed")
    now = config.model_dump(mode="json")
    for name in sorted({*now, *header["config"]}):
        then = header["config"].get(name)
        if then != now.get(name):
            raise CheckpointMismatch(
                f"checkpoint {path} was made with {name} = {then!r}, this run has {now.get(name)!r}; "
                "resume with the same config, or start a new run"
            )


def _island(path: Path, archive: Mapping[str, Any], island: int, like: Any) -> Any:
    leaves, tree = jax.tree_util.tree_flatten_with_path(like)
    found = []
    for where, leaf in leaves:
        value = archive[f"{island}:{jax.tree_util.keystr(where)}"]
        if value.shape != leaf.shape or value.dtype != leaf.dtype:
            raise CheckpointMismatch(
                f"checkpoint {path}: array {jax.tree_util.keystr(where)}: expected {leaf.dtype}{list(leaf.shape)}, "
                f"got {value.dtype}{list(value.shape)}; start a new run"
            )
        found.append(value)
    return jax.tree_util.tree_unflatten(tree, found)
