"""The repository keeps its own rules: links, marks, scripts, versions."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import re
import subprocess
import tomllib
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = [
    name
    for name in ("demo", "test", "check", "bench", "chaos")
    if (ROOT / "scripts" / name).exists()
]
NOT_OURS = {".git", "__pycache__", "build", "dist", "node_modules"}
TEXT = {"", ".cfg", ".css", ".html", ".ini", ".js", ".json", ".lua", ".md", ".py", ".sh", ".toml"}
TEXT |= {".txt", ".yaml", ".yml"}

# The classes of one letter keep this file from finding itself.
UNFINISHED = re.compile(r"\b(T[O]DO|F[I]XME|X[X]X|H[A]CK|W[I]P)\b|\b[Pp]hase [2-9]\b")
MACHINE = re.compile(
    r"(?<![\w.}>/-])/(?:r[o]ot|h[o]me/\w+|U[s]ers/\w+|w[o]rk|t[m]p/lab|o[p]t/(?:pypi|wheels))"
    r"(?=[/\s\"'`:,)]|$)"
)


def texts(root: Path) -> list[Path]:
    """Return the text files of a checkout; what tools leave in it is skipped."""
    found: list[Path] = []
    for directory, names, files in os.walk(root):
        here = Path(directory)
        names[:] = [
            name
            for name in names
            if name not in NOT_OURS
            # Caches of tools and stores of data, but not the settings of CI.
            and (not name.startswith(".") or name in (".ci", ".github"))
            and not (here / name / "pyvenv.cfg").exists()
            and not name.endswith(".egg-info")
        ]
        found += [here / name for name in files if (here / name).suffix in TEXT]
    return sorted(path for path in found if path.name != ".git")


def lines_with(pattern: re.Pattern[str], root: Path) -> list[str]:
    """Return ``path:line: text`` of every line of a checkout that a pattern finds."""
    return [
        f"{path.relative_to(root)}:{number}: {line.strip()[:120]}"
        for path in texts(root)
        for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), 1)
        if pattern.search(line)
    ]


def dead_links(root: Path) -> list[str]:
    """Return the relative links of Markdown files that lead nowhere, headings included."""
    found: list[str] = []
    for page in texts(root):
        if page.suffix != ".md":
            continue
        text = re.sub(
            r"^(```|~~~).*?^\1",
            "",
            page.read_text(encoding="utf-8"),
            flags=re.DOTALL | re.MULTILINE,
        )
        text = re.sub(r"`[^`\n]*`", "", text)
        links = re.findall(r"\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)", text)
        links += re.findall(r"^\[[^\]]+\]:\s*<?(\S+?)>?\s*$", text, flags=re.MULTILINE)
        for link in links:
            if re.match(r"[a-z][a-z+.-]*:", link):
                continue
            path, _, heading = unquote(link).partition("#")
            target = (page.parent / path) if path else page
            place = page.relative_to(root)
            if not target.exists():
                found.append(f"{place}: {link} does not exist")
            elif heading and target.suffix == ".md" and heading not in headings(target):
                found.append(f"{place}: {link}: no such heading")
    return found


def headings(page: Path) -> set[str]:
    """Return the anchors that a Markdown page's headings get."""
    text = re.sub(
        r"^(```|~~~).*?^\1", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )
    found: set[str] = set()
    for title in re.findall(r"^#{1,6}\s+(.+?)\s*#*$", text, flags=re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).lower()
        anchor = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        number = 0
        while (name := f"{anchor}-{number}" if number else anchor) in found:
            number += 1
        found.add(name)
    return found


def project() -> dict[str, str]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_no_unfinished_marks():
    assert lines_with(UNFINISHED, ROOT) == []


def test_no_path_of_a_developers_machine():
    assert lines_with(MACHINE, ROOT) == []


def test_no_dead_links():
    assert dead_links(ROOT) == []


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_is_executable_and_explains_itself(name: str):
    script = ROOT / "scripts" / name
    assert os.access(script, os.X_OK)
    done = subprocess.run(
        [script, "--help"], capture_output=True, text=True, timeout=60, check=False, cwd="/"
    )
    assert done.returncode == 0, done.stderr
    assert f"scripts/{name}" in done.stdout


def test_continuous_integration_is_executable():
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


@pytest.mark.parametrize("command", ["scripts/demo", "scripts/test"])
def test_readme_names_the_commands(command: str):
    assert command in (ROOT / "README.md").read_text(encoding="utf-8")


def test_changelog_has_the_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    version = project()["version"]
    assert re.search(rf"^## .*\b{re.escape(version)}\b", text, flags=re.MULTILINE)


def test_package_says_the_projects_version():
    package = importlib.import_module("wherry")
    assert getattr(package, "__version__", project()["version"]) == project()["version"]
    assert importlib.metadata.version("wherry") == project()["version"]


def test_broken_rules_are_found(tmp_path: Path):
    """Each rule above notices what it is for."""
    (tmp_path / "docs").mkdir()
    (tmp_path / ".venv").mkdir()
    mark, home = "TO-DO".replace("-", ""), "/ho-me/me".replace("-", "")
    (tmp_path / ".venv" / "lib.py").write_text(f"# {mark}: not ours\n")
    (tmp_path / "a.py").write_text(
        f"# {mark} later\nx = '{home}/x'\ny = 'redis://h{home}'\nz = 'a{home}'\n{mark}S = 1\n"
    )
    (tmp_path / "docs" / "a.md").write_text(
        "# A title, `code`\n[a](b.md) [b](../a.py) [c](#a-title-code) [d](a.md#none)\n"
        "[e](https://e.org/x) `[f](no.md)`\n```\n[g](no.md)\n```\n[h]: gone.md\n"
    )
    assert lines_with(UNFINISHED, tmp_path) == [f"a.py:1: # {mark} later"]
    assert lines_with(MACHINE, tmp_path) == [f"a.py:2: x = '{home}/x'"]
    assert dead_links(tmp_path) == [
        "docs/a.md: b.md does not exist",
        "docs/a.md: a.md#none: no such heading",
        "docs/a.md: gone.md does not exist",
    ]
