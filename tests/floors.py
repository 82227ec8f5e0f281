"""The rules of the package's layout: who may import whom, and what an ``__init__.py`` may hold.

Each rule takes a `Tree` and returns sentences: where, what is wrong, what to do. An empty list
means that the rule is kept. The rules read the source and import nothing, so that they can be fed
a bad tree (see ``test_floors.py``). What a single function or class may be is in ``shapes.py``.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "wherry"
ROOT_FLOOR = 6
FLOORS: dict[str, int] = {
    "errors": 0,
    "model": 0,
    "config": 0,
    "hooks": 0,
    "engine": 1,
    "broker": 2,
    "runtime": 3,
    "worker": 4,
    "client": 4,
    "doctor": 4,  # sees the broker alone, and belongs to no worker
    "testing": 4,
    # Processes around a worker; it sees a worker's lanes, and the worker itself as a Protocol.
    "supervisor": 4,
    "cli": 5,
    "exports": 5,  # imports by name whatever is public, and is imported by the top alone
    "__main__": 5,
}
# Who may import a neighbour on the same floor; floor 0 is one vocabulary and may do so freely.
NEIGHBOURS = {("testing", "worker"), ("testing", "client"), ("__main__", "cli")}
# Who may not see whom although the floors would allow it.
STRANGERS = {("broker", "engine"), ("engine", "broker")}
LOGGING = {"hooks.py", "cli/logs.py"}
# The world that decisions must not touch.
WORLD = {
    "asyncio", "concurrent", "datetime", "fakeredis", "logging", "os", "random", "redis", "secrets",
    "selectors", "signal", "socket", "subprocess", "threading", "time", "uuid",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """One source file: its dotted name, its path below the package, its text and syntax tree."""

    name: str
    path: str
    text: str
    syntax: ast.Module

    @property
    def is_package(self) -> bool:
        return self.path.endswith("__init__.py")

    @property
    def part(self) -> str:
        """The package's part it belongs to: a key of `FLOORS`, "" for the top ``__init__``."""
        return self.name.partition(".")[2].partition(".")[0]

    def at(self, node: ast.AST) -> str:
        return f"{self.path}:{getattr(node, 'lineno', 1)}"


Tree = Mapping[str, Module]


def read_tree(package: Path) -> Tree:
    """Parse every module below a package's directory, which must have an ``__init__.py``."""
    tree: dict[str, Module] = {}
    for file in sorted(package.rglob("*.py")):
        path = file.relative_to(package)
        parts = [PACKAGE, *path.with_suffix("").parts]
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        text = file.read_text(encoding="utf-8")
        syntax = ast.parse(text, filename=str(file))
        tree[name] = Module(name=name, path=path.as_posix(), text=text, syntax=syntax)
    if PACKAGE not in tree:
        raise FileNotFoundError(f"{package} has no __init__.py")
    return tree


def imports(module: Module) -> Iterator[tuple[str, ast.stmt]]:
    """Yield the absolute dotted names that a module imports, wherever the import stands.

    ``from a import b`` yields ``a.b``: whether that is a module is for the caller to see.
    """
    for node in ast.walk(module.syntax):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.name.split(".")
                package = package[: len(package) - node.level + module.is_package]
                base = ".".join([*package, base] if base else package)
            for alias in node.names:
                yield f"{base}.{alias.name}", node


def inner_imports(tree: Tree, module: Module) -> Iterator[tuple[Module, ast.stmt]]:
    """Yield the package's own modules that a module imports.

    A module that does not exist is the type checker's matter.
    """
    for name, node in imports(module):
        if name.partition(".")[0] != PACKAGE:
            continue
        target = name
        while target not in tree:  # the package itself always is
            target = target.rpartition(".")[0]
        if target != PACKAGE or name.removeprefix(f"{PACKAGE}.").partition(".")[0] not in FLOORS:
            yield tree[target], node


def floors(tree: Tree) -> list[str]:
    """Imports point down; the engine and the broker do not know each other."""
    found = [
        f"{module.path}: {module.part!r} is on no floor; add it to FLOORS in tests/floors.py"
        for module in tree.values()
        if module.part and module.part not in FLOORS
    ]
    for module in tree.values():
        mine = FLOORS.get(module.part, ROOT_FLOOR)
        for target, node in inner_imports(tree, module):
            pair = (module.part, target.part)
            theirs = FLOORS.get(target.part, ROOT_FLOOR)
            if pair[0] == pair[1]:
                continue
            if not target.part:
                found.append(
                    f"{module.at(node)}: imports from the top of the package; import from the"
                    " module that defines the name"
                )
            elif pair in STRANGERS:
                found.append(
                    f"{module.at(node)}: {pair[0]} imports {target.name}; engine and broker do not"
                    " know each other: what both need belongs to wherry.model, and runtime joins"
                    " them"
                )
            elif theirs > mine or (theirs == mine > 0 and pair not in NEIGHBOURS):
                found.append(
                    f"{module.at(node)}: {pair[0]} (floor {mine}) imports {target.name} (floor"
                    f" {theirs}); imports point down: move the name down, or declare a Protocol"
                    " here and let the caller pass the object"
                )
    return found


def cycles(tree: Tree) -> list[str]:
    """No module imports itself by way of others, in function bodies and for types neither."""
    edges = {m.name: sorted({t.name for t, _ in inner_imports(tree, m)}) for m in tree.values()}
    found: list[str] = []
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> None:
        if name in path:
            loop = [*path[path.index(name) :], name]
            found.append(f"import cycle {' -> '.join(loop)}: move what they share into one below")
            return
        if name in done:
            return
        for target in edges[name]:
            visit(target, [*path, name])
        done.add(name)

    for name in edges:
        visit(name, [])
    return found


def pure_engine(tree: Tree) -> list[str]:
    """The engine decides; it has no loop, clock, chance, log, socket or Redis."""
    return [
        f"{module.at(node)}: engine imports {name}; take what it gives as an argument (`now_s`)"
        for module in tree.values()
        if module.part == "engine"
        for name, node in imports(module)
        if name.partition(".")[0] in WORLD
    ]


def logging_in_hooks(tree: Tree) -> list[str]:
    """Only hooks.py logs, and cli/logs.py says how it looks."""
    return [
        f"{module.at(node)}: imports logging; report through wherry.hooks.Hooks"
        for module in tree.values()
        if module.path not in LOGGING
        for name, node in imports(module)
        if name.partition(".")[0] == "logging"
    ]


def _statements(module: Module) -> Iterator[ast.stmt]:
    """Yield what stands in an ``__init__.py``, also under ``if TYPE_CHECKING``.

    Only there may the public names be imported for type checkers alone (see ``exports.py``).
    """
    for node in module.syntax.body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from node.body
            yield from node.orelse
        else:
            yield node


def plain_inits(tree: Tree) -> list[str]:
    """An ``__init__.py`` holds a docstring, imports and ``__all__``, and no logic."""
    found: list[str] = []
    for module in tree.values():
        if not module.is_package:
            continue
        for place, node in enumerate(_statements(module)):
            is_docstring = place == 0 and ast.get_docstring(module.syntax) is not None
            if is_docstring or isinstance(node, ast.Import | ast.ImportFrom):
                continue
            if isinstance(node, ast.Assign) and len(node.targets) == 1:
                name = ast.unparse(node.targets[0])
                if name in ("__all__", "__version__") and _is_literal(node.value):
                    continue
            found.append(
                f"{module.at(node)}: an __init__.py holds imports and __all__ only; move this into"
                " a module"
            )
    return found


def _is_literal(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except ValueError:
        return False
    return True


def public_names(tree: Tree) -> list[str]:
    """The top ``__all__`` lists exactly the public names that the top ``__init__`` imports."""
    top = tree[PACKAGE]
    imported: set[str] = set()
    listed: list[str] | None = None
    for node in _statements(top):
        if isinstance(node, ast.Import | ast.ImportFrom):
            if getattr(node, "module", None) not in ("__future__", "typing"):
                imported |= {a.asname or a.name.partition(".")[0] for a in node.names}
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            listed = list(ast.literal_eval(node.value))
    if listed is None:
        return [f"{top.path}: no __all__; list the public names"]
    public = {name for name in imported if not name.startswith("_")}
    names = {name for name in listed if name != "__version__"}
    found = [f"{top.path}: __all__ does not list {name}" for name in sorted(public - names)]
    found += [f"{top.path}: __all__ lists {name}, not imported" for name in sorted(names - public)]
    if len(set(listed)) != len(listed):
        found.append(f"{top.path}: __all__ lists a name twice")
    return found
