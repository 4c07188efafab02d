"""The registry: names, entry points, and errors for an unknown or broken one."""

from importlib.metadata import EntryPoint

import pytest

from astrocyte.schemas import registry as module
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.schemas.registry import Registry


def installed(monkeypatch, **values: str) -> None:
    entries = [EntryPoint(name, value, "some.group") for name, value in values.items()]
    monkeypatch.setattr(module, "entry_points", lambda group: entries if group == "some.group" else [])


def make(**shipped: object) -> Registry:
    return Registry("widget", group="some.group", shipped=shipped)


def test_shipped_ones_come_first_and_none_is_loaded_by_listing(monkeypatch):
    installed(monkeypatch, broken="no_such_module:thing", alpha="math:pi")
    widgets = make(round="math:tau")
    widgets.register("zeta", object())
    assert widgets.names() == ("round", "alpha", "broken", "zeta")
    assert "broken" in widgets


def test_an_import_string_is_resolved_on_first_use(monkeypatch):
    installed(monkeypatch, pi="math:pi")
    assert make(parts="os:path.join").get("parts")("a", "b") == "a/b"
    assert make().get("pi") == pytest.approx(3.14159, abs=1e-5)


def test_an_unknown_name_lists_the_known_ones_and_the_nearest(monkeypatch):
    installed(monkeypatch)
    with pytest.raises(InvalidSettings, match=r"no widget 'rond'; known: round, square; did you mean 'round'\?"):
        make(round=1, square=2).get("rond")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("no_such_module:thing", "module 'no_such_module' cannot be imported"),
        ("math:no_such_name", "module 'math' has no 'no_such_name'"),
        ("tests.support.broken_plugin:thing", "importing 'tests.support.broken_plugin' failed: ValueError: by design"),
    ],
)
def test_an_entry_point_that_cannot_be_imported_is_named_in_one_line(monkeypatch, value, message):
    installed(monkeypatch, mine=value)
    with pytest.raises(InvalidSettings) as caught:
        make().get("mine")
    assert str(caught.value).startswith("entry point 'mine' in 'some.group'")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_name_belongs_to_one_object_but_a_module_may_be_loaded_twice():
    def first():
        pass

    def second():
        pass

    widgets = make(shipped="math:pi")
    widgets.register("mine", first)
    widgets.register("mine", first)
    with pytest.raises(InvalidSettings, match="there is a widget 'mine' already"):
        widgets.register("mine", second)
    with pytest.raises(InvalidSettings, match="there is a widget 'shipped' already"):
        widgets.register("shipped", first)
    with pytest.raises(InvalidSettings, match="widget name 'two words'"):
        widgets.register("two words", first)


def test_an_entry_point_whose_module_registers_the_name_is_what_it_registered(monkeypatch):
    installed(monkeypatch, pi="some_module:pi")
    widgets, more = make(), object()

    def imports(_reference, _what):
        widgets.register("pi", more)
        return 3.14

    monkeypatch.setattr(module, "import_object", imports)
    assert widgets.get("pi") is more
