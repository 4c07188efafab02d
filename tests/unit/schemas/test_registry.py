"""The registry: names, entry points, and errors for an unknown or broken one."""

import logging
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


def test_one_that_cannot_be_imported_is_left_out_of_the_list_with_one_warning(monkeypatch, caplog):
    installed(monkeypatch, broken="tests.support.broken_plugin:thing", pi="math:pi")
    widgets = make(tau="math:tau")
    with caplog.at_level(logging.WARNING):
        assert [name for name, _ in widgets.items()] == ["tau", "pi"]
        assert [name for name, _ in widgets.items()] == ["tau", "pi"]
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("entry point 'broken' in 'some.group': importing 'tests.support.broken_plugin' failed: ")
    assert "\n" not in line
    with pytest.raises(InvalidSettings, match=r"entry point 'broken' in 'some\.group'"):
        widgets.get("broken")


def test_a_module_that_ends_the_program_at_its_import_is_named(monkeypatch, tmp_path):
    (tmp_path / "leaving_module.py").write_text("raise SystemExit(7)")
    monkeypatch.syspath_prepend(str(tmp_path))
    installed(monkeypatch, mine="leaving_module:thing")
    with pytest.raises(InvalidSettings, match=r"entry point 'mine' .*importing 'leaving_module' failed: SystemExit: 7"):
        make().get("mine")


class Package:
    def __init__(self, name: str) -> None:
        self.name, self.version = name, "1.0"


def of_package(name: str, value: str, package: str) -> EntryPoint:
    entry = EntryPoint(name, value, "some.group")
    vars(entry).update(dist=Package(package))
    return entry


def test_two_packages_with_one_name_are_both_named(monkeypatch):
    entries = [of_package("mine", "math:pi", "left"), of_package("mine", "math:tau", "right")]
    monkeypatch.setattr(module, "entry_points", lambda group: entries)
    widgets = make()
    with pytest.raises(InvalidSettings) as caught:
        widgets.get("mine")
    assert "math:pi of left 1.0 and math:tau of right 1.0; uninstall all but one" in str(caught.value)
    assert widgets.items() == []
    widgets.register("mine", 3)
    assert widgets.get("mine") == 3


def test_an_entry_point_with_the_name_of_a_shipped_one_is_not_used_and_named(monkeypatch, caplog):
    monkeypatch.setattr(module, "entry_points", lambda group: [of_package("tau", "math:pi", "left")])
    with caplog.at_level(logging.WARNING):
        assert make(tau="math:tau").items()[0][1] == pytest.approx(6.283, abs=1e-3)
    assert "entry point 'tau' in 'some.group' of left 1.0 is not used: there is a shipped widget" in caplog.text


class Thing:
    def __init__(self, size: int) -> None:
        self.size = size


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Thing, r"Thing\(\) failed: TypeError"),
        (Thing(1), None),
        (3, r"expected a Thing or its class, got 3 of type int"),
    ],
)
def test_what_is_not_of_the_kind_is_refused_when_it_is_registered(given, message):
    things = Registry("thing", group="some.group", of=Thing)
    if message is None:
        things.register("mine", given)
        assert things.get("mine") is given
        return
    with pytest.raises(InvalidSettings, match=message):
        things.register("mine", given)
    assert "mine" not in things


def test_a_name_that_is_no_text_is_refused():
    with pytest.raises(InvalidSettings, match="widget name 5; expected letters"):
        make().register(5, object())
