"""The Python API: every name is there, imported lazily, and stays what it is."""

import subprocess
import sys

import pytest

import sftknow


@pytest.mark.parametrize("name", [name for name in sftknow.__all__ if name != "__version__"])
def test_a_name_means_the_same_at_every_use(name: str) -> None:
    first = getattr(sftknow, name)
    assert callable(first)
    assert getattr(sftknow, name) is first


def test_an_unknown_name_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        sftknow.nothing  # noqa: B018


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, sftknow; print(sorted({'torch', 'numpy', 'transformers', 'yaml'} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"
