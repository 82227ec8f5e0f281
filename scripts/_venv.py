"""Keep the repository's virtual environment current and print the path of its Python.

Called by ``_bootstrap.sh`` with the wanted extras. Only the standard library is used, and only
the environment's own directory is written to. Exit code 2 with one sentence when it fails.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
LOCK = ".wherry-lock"
STAMP = ".wherry-stamp.json"


def main(wanted: set[str]) -> None:
    """Make the environment if need be, install what is missing, print its Python."""
    own = ROOT / ".venv"
    venv = Path(os.environ.get("WHERRY_VENV") or own).absolute()
    python = venv / "bin" / "python"
    with _locked(venv):
        version = _version(python)
        if version is None and any(child.name != LOCK for child in venv.iterdir()):
            # Left by a creation that was interrupted, or its Python is gone.
            _clear(venv, may_delete=venv == own)
        if version is None:
            _create(venv)
            version = _version(python)
        if version is None or version < (3, 11):
            _fail(f"{python} is no working Python 3.11 or newer: delete {venv} and try again")
        state = _state(version)
        installed = _installed(venv / STAMP, state)
        if installed is None or not wanted <= installed:
            _install(python, venv / STAMP, state, wanted | (installed or set()))
    print(python)


def _fail(sentence: str) -> NoReturn:
    print(sentence, file=sys.stderr)
    raise SystemExit(2)


@contextlib.contextmanager
def _locked(venv: Path) -> Iterator[None]:
    """Hold the environment's lock; others wait for whoever installs."""
    try:
        venv.mkdir(parents=True, exist_ok=True)
        if any(venv.iterdir()) and not any((venv / n).exists() for n in (LOCK, "pyvenv.cfg")):
            # Nothing that we or `python -m venv` began: not even the lock belongs in there.
            _clear(venv, may_delete=venv == ROOT / ".venv")
        lock = open(venv / LOCK, "w", encoding="utf-8")  # noqa: SIM115 - closed below
    except OSError as error:
        _fail(f"{venv} is not writable ({error.strerror}): set WHERRY_VENV to a directory that is")
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _version(python: Path) -> tuple[int, int] | None:
    """Return the version of an environment's Python, None if it does not run or has no pip.

    Without its pyvenv.cfg it is the system's Python, which is not ours to install into.
    """
    code = "import sys, pip; assert sys.prefix != sys.base_prefix; print(*sys.version_info[:2])"
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    major, minor = done.stdout.split()
    return int(major), int(minor)


def _clear(venv: Path, *, may_delete: bool) -> None:
    """Empty a directory that is no usable environment, if it is ours to empty."""
    if not may_delete:
        _fail(
            f"{venv} is not a working virtual environment: delete it or set WHERRY_VENV to another"
        )
    for child in venv.iterdir():
        if child.name == LOCK:
            continue
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child)
        else:
            child.unlink()


def _create(venv: Path) -> None:
    print(f"making a virtual environment in {venv}", file=sys.stderr)
    done = subprocess.run([sys.executable, "-m", "venv", venv], stdout=sys.stderr, check=False)
    if done.returncode != 0:
        _fail(
            f"{sys.executable} could not make a virtual environment in {venv}; its message is"
            " above. On Debian and Ubuntu: apt-get install python3-venv"
        )


def _state(version: tuple[int, int]) -> dict[str, object]:
    """What an installation depends on; another state means to install again."""
    project = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()
    return {"project": project, "root": str(ROOT), "python": list(version)}


def _installed(stamp: Path, state: dict[str, object]) -> set[str] | None:
    """Return the extras installed in this state, None if the installation is of another one."""
    try:
        known = json.loads(stamp.read_text(encoding="utf-8"))
        extras = set(known.pop("extras"))
    except (OSError, ValueError, KeyError):
        return None
    return extras if known == state else None


def _install(python: Path, stamp: Path, state: dict[str, object], extras: set[str]) -> None:
    target = f".[{','.join(sorted(extras))}]" if extras else "."
    print(f"installing {target} into {python.parent.parent} (a minute, once)", file=sys.stderr)
    stamp.unlink(missing_ok=True)
    command = [python, "-m", "pip", "install", "--quiet", "--no-input", "--progress-bar", "off"]
    command += ["--disable-pip-version-check", "--no-warn-script-location", "--editable", target]
    # A user's `pip --user` setting would be refused inside a virtual environment.
    environment = os.environ | {"PIP_USER": "0", "PIP_ROOT_USER_ACTION": "ignore"}
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=sys.stderr, check=False)
    if done.returncode != 0:
        _fail(
            f"pip could not install {target}; its message is above (is a package index reachable?)"
        )
    stamp.write_text(json.dumps(state | {"extras": sorted(extras)}), encoding="utf-8")


if __name__ == "__main__":
    main(set(sys.argv[1:]))
