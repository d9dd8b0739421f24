"""What the package exports: exactly what it says, each name once, each with words of its own."""

from __future__ import annotations

import importlib
import inspect
import tomllib
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

import networkio_proto
from networkio_proto import Connection, ConnectionFailure, Endpoint, Session, errors, events

ROOT = Path(__file__).parents[2]
NAMES = sorted(path.stem for path in Path(networkio_proto.__file__).parent.glob("*.py") if path.stem != "__init__")
MODULES = [importlib.import_module(f"networkio_proto.{name}") for name in NAMES]


def public(module: ModuleType) -> set[str]:
    """What a module shows: no submodules, nothing with an underscore."""
    return {name for name, thing in vars(module).items() if name[0] != "_" and not inspect.ismodule(thing)}


def test_all_is_exactly_what_the_package_shows() -> None:
    assert set(networkio_proto.__all__) == public(networkio_proto)


def test_a_star_import_brings_all_and_nothing_else() -> None:
    namespace: dict[str, object] = {}
    exec("from networkio_proto import *", namespace)
    assert namespace.keys() - {"__builtins__"} == set(networkio_proto.__all__)


def test_no_name_is_exported_twice() -> None:
    assert [name for name, count in Counter(networkio_proto.__all__).items() if count > 1] == []


def test_no_two_modules_export_different_things_under_one_name() -> None:
    things: dict[str, list[object]] = {}
    for module in MODULES:
        for name in module.__all__:
            things.setdefault(name, []).append(getattr(module, name))
    assert {name: found for name, found in things.items() if any(thing is not found[0] for thing in found)} == {}


@pytest.mark.parametrize("module", [errors, events], ids=lambda module: module.__name__)
def test_every_error_and_every_event_is_exported(module: ModuleType) -> None:
    assert set(module.__all__) <= set(networkio_proto.__all__)
    for name in module.__all__:
        assert getattr(networkio_proto, name) is getattr(module, name)


@pytest.mark.parametrize("name", ["Config", "Connection", "Endpoint", "Limits", "MsgpackCodec", "Session", "Target"])
def test_what_a_driver_needs_is_exported(name: str) -> None:
    assert name in networkio_proto.__all__


@pytest.mark.parametrize("module", MODULES, ids=NAMES)
def test_every_module_says_what_it_holds_and_what_it_exports(module: ModuleType) -> None:
    assert module.__doc__
    exported = module.__all__
    assert len(set(exported)) == len(exported)
    for name in exported:
        thing = getattr(module, name)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            assert thing.__module__ == module.__name__


@pytest.mark.parametrize("name", networkio_proto.__all__)
def test_every_exported_class_and_function_has_words_of_its_own(name: str) -> None:
    thing = getattr(networkio_proto, name)
    if inspect.isclass(thing):
        words = vars(thing).get("__doc__") or ""
        if issubclass(thing, ConnectionFailure):
            words = words or vars(thing)["explanation"]
        assert words
        assert not words.startswith(f"{name}("), "made by dataclass"
    elif inspect.isfunction(thing):
        assert thing.__doc__


@pytest.mark.parametrize("kind", [Endpoint, Connection, Session])
def test_every_method_that_a_driver_calls_says_what_it_does(kind: type) -> None:
    methods = {name: thing for name, thing in inspect.getmembers(kind) if name[0] != "_"}
    called = {
        name for name, thing in methods.items() if inspect.isfunction(thing) or isinstance(thing, property)
    }
    assert called
    assert {name for name in called if not inspect.getdoc(methods[name])} == set()


def test_the_version_is_that_of_the_distribution() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        assert tomllib.load(file)["project"]["version"] == networkio_proto.__version__
