"""The rules for single modules: sizes, and where tasks are born.

Like those in ``floors.py`` each rule returns sentences about what breaks it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping

from tests.floors import Module, Tree

MODULE_LINES = 350
FUNCTION_LINES = 50
PARAMETERS = 7
ATTRIBUTES = 12
ASYNCIO_BANNED = {"create_task", "ensure_future", "gather", "shield", "wait_for"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def sizes(tree: Tree) -> list[str]:
    """Modules, functions, signatures and objects stay small."""
    found: list[str] = []
    for module in tree.values():
        if (lines := len(module.text.splitlines())) > MODULE_LINES:
            found.append(
                f"{module.path}: {lines} lines, at most {MODULE_LINES}: find the second noun in it"
            )
        for node in ast.walk(module.syntax):
            if isinstance(node, Function):
                found += _function_sizes(module, node)
            elif isinstance(node, ast.ClassDef) and len(names := _attributes(node)) > ATTRIBUTES:
                found.append(
                    f"{module.at(node)}: {node.name} has {len(names)} attributes, at most"
                    f" {ATTRIBUTES}: {', '.join(sorted(names))}; some of them are one object"
                )
    return found


def _function_sizes(module: Module, function: Function) -> Iterator[str]:
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    if lines > FUNCTION_LINES:
        yield (
            f"{module.at(function)}: {function.name}() has {lines} lines, at most"
            f" {FUNCTION_LINES}: name a step of it"
        )
    arguments = function.args
    names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    names += [a.arg for a in (arguments.vararg, arguments.kwarg) if a]
    count = len(names) - (names[:1] in (["self"], ["cls"]))
    # typer reads the options of a command from its parameters: there they are data.
    if count > PARAMETERS and not (module.part == "cli" and function.decorator_list):
        yield (
            f"{module.at(function)}: {function.name}() has {count} parameters, at most"
            f" {PARAMETERS}: which of them belong together?"
        )


def _attributes(node: ast.ClassDef) -> set[str]:
    """Return what a class keeps in its objects: self's attributes, a state holder's fields."""
    found = {
        target.attr
        for method in node.body
        if isinstance(method, Function)
        for target in ast.walk(method)
        if isinstance(target, ast.Attribute)
        and isinstance(target.ctx, ast.Store)
        and isinstance(target.value, ast.Name)
        and target.value.id == "self"
    }
    decorators = [ast.unparse(d) for d in node.decorator_list]
    # A frozen dataclass is a value, as long as what it describes.
    if any("dataclass" in text and "frozen=True" not in text for text in decorators):
        found |= {
            field.target.id
            for field in node.body
            if isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and "ClassVar" not in ast.unparse(field.annotation)
        }
    return found


def tasks(tree: Tree, allowed: Mapping[tuple[str, str], str]) -> list[str]:
    """Tasks are born in task groups; deadlines are `asyncio.timeout`.

    `allowed` names the exceptions, (path, name) -> reason; one that is not needed is reported too.
    """
    found: list[str] = []
    used: set[tuple[str, str]] = set()
    for module in tree.values():
        groups = _task_groups(module.syntax)
        for name, node in _task_calls(module.syntax, groups):
            used.add((module.path, name))
            if (module.path, name) not in allowed:
                found.append(
                    f"{module.at(node)}: {name} outside a TaskGroup; use `async with"
                    " asyncio.TaskGroup()` and asyncio.timeout, or add the place with its reason"
                    " to TASKS_ALLOWED in tests/test_floors.py"
                )
    found += [
        f"{path}: {name} is in TASKS_ALLOWED but not used there any more; remove the entry"
        for path, name in allowed
        if (path, name) not in used
    ]
    return found


def _task_groups(syntax: ast.Module) -> set[str]:
    """Return the last name of whatever a module binds to, or declares as, a TaskGroup."""
    found: set[str] = set()
    for node in ast.walk(syntax):
        targets: list[ast.expr | None] = []
        if isinstance(node, ast.withitem) and "TaskGroup(" in ast.unparse(node.context_expr):
            targets = [node.optional_vars]
        elif isinstance(node, ast.Assign) and "TaskGroup(" in ast.unparse(node.value):
            targets = [*node.targets]
        elif isinstance(node, ast.AnnAssign) and "TaskGroup" in ast.unparse(node.annotation):
            targets = [node.target]
        elif isinstance(node, ast.arg) and node.annotation is not None:
            found |= {node.arg} if "TaskGroup" in ast.unparse(node.annotation) else set()
        found |= {ast.unparse(target).rpartition(".")[2] for target in targets if target}
    return found


def _task_calls(syntax: ast.Module, groups: set[str]) -> Iterator[tuple[str, ast.AST]]:
    """Yield every mention of a banned function: called, passed on, or imported by name.

    `create_task` is asked of loops and groups, so whoever is asked must be a group; the others
    are banned as asyncio's (a Condition has a `wait_for` of its own).
    """
    for node in ast.walk(syntax):
        if isinstance(node, ast.Attribute) and node.attr in ASYNCIO_BANNED:
            owner = ast.unparse(node.value).rpartition(".")[2]
            if owner == "asyncio" or (node.attr == "create_task" and owner not in groups):
                yield node.attr, node
        elif isinstance(node, ast.ImportFrom) and node.module == "asyncio":
            for alias in node.names:
                if alias.name in ASYNCIO_BANNED:
                    yield alias.name, node
