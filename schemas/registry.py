"""Registry: objects of one kind by name, shipped, registered by a program, or installed under an entry point.

Every extension point (validators, sinks, scenarios, controllers, decoders, roles) has one, which also holds what ships
with Astrocyte. An object may be given as the string ``"module:attribute"``: it is imported at its first use, so that
listing the names imports nothing.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from inspect import isasyncgenfunction, iscoroutinefunction, signature
from typing import Any, Final, Generic, TypeVar

from astrocyte.schemas.errors import InvalidSettings, shown_with_type

__all__ = ["Registry", "described", "did_you_mean", "import_object", "install_hint", "one_line", "takes"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

_EXTRAS: Final = {
    "jax": "simulator",
    "jaxlib": "simulator",
    "fastavro": "avro",
    "psycopg": "postgres",
    "pgvector": "postgres",
    "matplotlib": "report",
}
"""Modules that an extra of Astrocyte installs."""


def install_hint(module: str) -> str:
    """``; pip install ...`` for a module that an extra of Astrocyte installs; empty for others."""
    extra = _EXTRAS.get(module.partition(".")[0])
    return f"; pip install 'astrocyte[{extra}]'" if extra else ""


def did_you_mean(name: str, known: Collection[str], *, similarity: float = 0.5) -> str:
    """``; did you mean 'x'?`` for the known name most similar to ``name``; empty where none is similar.

    ``similarity``: the least, from 0 to 1 (`difflib.SequenceMatcher.ratio`).
    """
    close = difflib.get_close_matches(name, known, n=1, cutoff=similarity)
    return f"; did you mean {close[0]!r}?" if close else ""


def import_object(reference: str, what: str) -> Any:
    """The object at ``module:attribute``. Raises InvalidSettings, whose message begins with ``what``."""
    module, _, attribute = reference.partition(":")
    try:
        found: Any = import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except ModuleNotFoundError as error:
        missing = (error.name or module).partition(".")[0]
        if hint := install_hint(missing):
            raise InvalidSettings(f"{what} needs {missing}, which is not installed{hint}") from error
        raise InvalidSettings(f"{what}: module {error.name!r} cannot be imported; is it installed?") from error
    except AttributeError as error:
        raise InvalidSettings(f"{what}: module {module!r} has no {attribute!r}") from error
    except (Exception, SystemExit) as error:
        raise InvalidSettings(f"{what}: importing {module!r} failed: {one_line(error)}") from error
    return found


def one_line(error: BaseException) -> str:
    """Type and text of an error of a user's module, without line breaks."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def takes(thing: Any, count: int, *, more: bool = False) -> bool:
    """Whether an object can be called with ``count`` positional arguments; ``more``: and with others by name.

    Not an async function, whose call does nothing.
    """
    if not callable(thing) or iscoroutinefunction(thing) or isasyncgenfunction(thing):
        return False
    try:
        known = signature(thing)
    except (TypeError, ValueError):
        return True  # a function in C, whose arguments are not known
    try:
        (known.bind_partial if more else known.bind)(*[None] * count)
    except TypeError:
        return False
    return True


class Registry(Generic[T]):
    """Objects of one ``kind`` by name, looked up in this order: registered by the program, shipped, installed.

    ``shipped`` maps names to objects or to ``module:attribute`` strings. `get` returns an instance of ``of``, made
    from the class where that was given, or what ``convert(name, found)`` makes of the object. Objects of another kind,
    and those of which ``check(name, made)`` raises InvalidSettings, are refused when they are registered.
    """

    def __init__(
        self,
        kind: str,
        *,
        group: str,
        shipped: Mapping[str, Any] | None = None,
        of: type[T] | None = None,
        convert: Callable[[str, Any], T] | None = None,
        check: Callable[[str, T], None] | None = None,
    ) -> None:
        self.kind, self.group = kind, group
        self._shipped = dict(shipped or {})
        self._registered: dict[str, Any] = {}
        self._of = of
        self._convert = convert
        self._check = check
        self._loaded: dict[str, T] = {}
        self._broken: dict[str, str] = {}
        self._installed: dict[str, list[EntryPoint]] | None = None

    def register(self, name: str, thing: Any) -> None:
        """Add an object. Raises InvalidSettings if it is not of the kind, or if the name belongs to another object.

        The same definition may be registered again (a module loaded twice, a notebook cell run again).
        """
        if not isinstance(name, str) or not name.replace("-", "_").replace(".", "_").isidentifier():
            raise InvalidSettings(
                f"{self.kind} name {name!r}; expected letters, digits, '_', '-' and '.', not beginning with a digit"
            )
        before = self._registered.get(name, self._shipped.get(name))
        if before is not None and _definition(before) != _definition(thing):
            raise InvalidSettings(f"there is a {self.kind} {name!r} already; register this one under another name")
        if isinstance(thing, str):
            self._loaded.pop(name, None)
        else:
            self._loaded[name] = self.converted(name, thing)
        self._registered[name] = thing
        self._broken.pop(name, None)

    def names(self) -> tuple[str, ...]:
        """All names: the shipped ones in their order, then the others sorted. Imports none of them."""
        others = {*self._registered, *self._entry_points()} - self._shipped.keys()
        return (*self._shipped, *sorted(others))

    @property
    def shipped(self) -> tuple[str, ...]:
        """Names that come with Astrocyte, in their order."""
        return tuple(self._shipped)

    def __contains__(self, name: object) -> bool:
        # Installed ones last: reading the entry points of an environment takes milliseconds.
        return name in self._registered or name in self._shipped or name in self._entry_points()

    def get(self, name: str) -> T:
        """The object of that name.

        Raises InvalidSettings for an unknown name, listing the known ones, and for an entry point that cannot be
        imported or is one of several of the same name, naming it.
        """
        if name in self._broken:
            raise InvalidSettings(self._broken[name])  # not imported again
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def items(self) -> list[tuple[str, T]]:
        """Names and objects; imports all of them.

        An installed one that cannot be loaded is left out, with one warning: nobody may have meant to use it.
        """
        for name in self._entry_points().keys() - self._broken.keys() - self._shipped.keys():
            try:
                self.get(name)
            except InvalidSettings as error:
                if name in self._registered:
                    raise
                self._broken[name] = str(error)
                logger.warning("%s; it is left out", error)
        return [(name, self.get(name)) for name in self.names() if name not in self._broken]

    def unknown(self, name: str) -> str:
        """Message about a name that is not in the registry."""
        names = self.names()
        known = ", ".join(names) or (
            "none; a module registers its own when it is imported: import it, or name it in ASTROCYTE_PLUGINS"
        )
        return f"there is no {self.kind} {name!r}; known: {known}{did_you_mean(name, names)}"

    def _load(self, name: str) -> T:
        found: Any
        if name in self._registered or name in self._shipped:
            found = self._registered.get(name, self._shipped.get(name))
            if isinstance(found, str):
                found = import_object(found, f"{self.kind} {name!r}")
        elif name in self._entry_points():
            entry, *others = self._entry_points()[name]
            if others:
                packages = " and ".join(f"{each.value}{_package(each)}" for each in (entry, *others))
                raise InvalidSettings(
                    f"entry point {name!r} in {self.group!r} is defined more than once: {packages}; uninstall all but "
                    "one of these packages, or rename the entry points"
                )
            found = import_object(entry.value, f"entry point {name!r} in {self.group!r}{_package(entry)}")
            # If importing the module registered the name, that registration has more detail, such as what a sink reads.
            found = self._registered.get(name, found)
        else:
            raise InvalidSettings(self.unknown(name))
        return self.converted(name, found)

    def converted(self, name: str, found: Any) -> T:
        """What `get` returns for an object ``found`` of that name. Raises InvalidSettings."""
        made: T
        if self._convert is not None:
            made = self._convert(name, found)
        else:
            if self._of is not None:
                if isinstance(found, type) and issubclass(found, self._of):
                    found = self._made(name, found)
                if not isinstance(found, self._of):
                    raise InvalidSettings(
                        f"{self.kind} {name!r}: expected a {self._of.__name__} or its class, got {described(found)}"
                    )
            made = found
        if self._check is not None:
            self._check(name, made)
        return made

    def _made(self, name: str, of: type) -> Any:
        missing = sorted(getattr(of, "__abstractmethods__", ()))
        if missing:
            raise InvalidSettings(f"{self.kind} {name!r}: {of.__name__} has no {', '.join(missing)}; define each")
        try:
            return of()
        except Exception as error:
            raise InvalidSettings(
                f"{self.kind} {name!r}: {of.__name__}() failed: {one_line(error)}; register an instance, "
                "or a class that can be called without arguments"
            ) from error

    def _entry_points(self) -> dict[str, list[EntryPoint]]:
        """Entry points by name; several of one name where packages contradict each other."""
        if self._installed is None:
            self._installed = {}
            for entry in entry_points(group=self.group):
                same = self._installed.setdefault(entry.name, [])
                if all(entry.value != each.value for each in same):
                    same.append(entry)
            for name in self._installed.keys() & self._shipped.keys():
                package = _package(self._installed[name][0])
                logger.warning(
                    "entry point %r in %r%s is not used: there is a shipped %s of that name",
                    name, self.group, package, self.kind,
                )  # fmt: skip
        return self._installed


def _package(entry: EntryPoint) -> str:
    """Name and version of the package of an entry point, after ``of``, if they are known."""
    return f" of {entry.dist.name} {entry.dist.version}" if entry.dist is not None else ""


def described(thing: Any) -> str:
    """What an object of the wrong kind is."""
    if isinstance(thing, type):
        return f"the class {thing.__name__}"
    if callable(thing):
        kind = "async function" if iscoroutinefunction(thing) or isasyncgenfunction(thing) else "function"
        try:
            return f"the {kind} {getattr(thing, '__name__', type(thing).__name__)}{signature(thing)}"
        except (TypeError, ValueError):
            pass
    return shown_with_type(thing)


def _definition(thing: Any) -> Any:
    """Identity that two loads of one definition share: module and qualified name; for a string the string itself."""
    if isinstance(thing, str):
        return thing
    inner = getattr(thing, "definition", thing)
    place = (getattr(inner, "__module__", None), getattr(inner, "__qualname__", None))
    return place if place[1] is not None else id(inner)
