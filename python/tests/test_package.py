"""The package as it is installed: its types, its documentation, its README."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from conftest import missing

import gristmill

HERE = Path(__file__).parent
PACKAGE = Path(gristmill.__file__).parent


def run(*command: str, folder: Path, timeout: int = 300) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done


def test_mypy_finds_nothing_in_strict_mode(tmp_path: Path) -> None:
    run(sys.executable, "-m", "mypy", "--strict", "-p", "gristmill", folder=tmp_path)
    run(sys.executable, "-m", "mypy", "--strict", str(HERE), folder=tmp_path)


@pytest.mark.skipif(
    shutil.which("node") is None and os.environ.get("CI") != "true", reason="pyright needs Node 20 or newer"
)
def test_pyright_finds_nothing_in_strict_mode(tmp_path: Path) -> None:
    (tmp_path / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict", "include": ["user.py"]}')
    (tmp_path / "user.py").write_text((HERE / "typed_user.py").read_text())
    run(sys.executable, "-m", "pyright", "--pythonpath", sys.executable, folder=tmp_path)


def test_the_stub_says_what_the_binary_has(tmp_path: Path) -> None:
    run(sys.executable, "-m", "mypy.stubtest", "gristmill._lib", folder=tmp_path)


def test_everything_that_is_public_is_documented() -> None:
    missing = []
    for name in gristmill.__all__:
        thing = getattr(gristmill, name)
        if not inspect.isclass(thing) and not inspect.isfunction(thing):
            continue
        if not inspect.getdoc(thing):
            missing.append(name)
        if not inspect.isclass(thing) or not thing.__module__.startswith("gristmill.") or thing.__module__ == "gristmill._lib":
            continue
        for member, value in vars(thing).items():
            public = not member.startswith("_") and (inspect.isfunction(value) or isinstance(value, property))
            if public and not (value.fget if isinstance(value, property) else value).__doc__:
                missing.append(f"{name}.{member}")
    assert missing == []


def test_every_part_of_the_binary_has_a_wrapper() -> None:
    from gristmill import _lib

    used = "".join(path.read_text() for path in PACKAGE.glob("*.py"))
    unused = [name for name in dir(_lib) if not name.startswith("_") and not re.search(rf"\b{name}\b", used)]
    assert unused == []


def test_the_readme_runs_where_nothing_else_is_installed(tmp_path: Path) -> None:
    wheel = os.environ.get("GRISTMILL_WHEEL")
    if not wheel:
        missing("GRISTMILL_WHEEL names no wheel; `make test` sets it")
    venv.create(tmp_path / "venv", with_pip=False)
    own = str(tmp_path / "venv" / "bin" / "python")
    run(sys.executable, "-m", "pip", "--python", own, "install", "--quiet", "--no-deps", "--no-index", wheel, folder=tmp_path)
    readme = (HERE.parent / "README.md").read_text()
    programs = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    assert programs
    for number, program in enumerate(programs):
        (tmp_path / f"program{number}.py").write_text(program)
        done = run(own, "-W", "error", f"program{number}.py", folder=tmp_path)
        expected = re.findall(r"^ *# -> (.*)$", program, re.MULTILINE)
        assert expected, program
        for line in expected:
            assert line in done.stdout
    version = run(str(tmp_path / "venv" / "bin" / "gristmill"), "version", folder=tmp_path)
    assert gristmill.__version__ in version.stdout
