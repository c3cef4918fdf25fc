"""Fingerprints: has the code that a trial can reach changed since its result was written?

The syntax trees are compared, without comments, docstrings, annotations and formatting. From the trial's function the
names it uses are followed through its module and through every assay module that they are imported from, name by name:
adding a function to a shared module leaves the studies that do not call it fresh. The lab itself is left out; it
carries a version of its own (`LAB_VERSION`), raised when its changes alter what a trial computes. What is looked up by
text (getattr, registries) is not seen.
"""

import ast
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from assay.lab import config as configs
from assay.lab import registry
from assay.lab.study import Study

LAB_VERSION = 1
_IDLE = {"ctx", "type_comment", "type_params", "kind", "returns", "annotation"}
_OUTSIDE = ("assay.lab", "assay._extras", "assay.cli")


def fingerprint(study: Study, arm: str, config: Any) -> str:
    """16 hex digits over what decides the numbers of `arm`: code, config values, lab version."""
    part = study.part(arm, config)
    digest = hashlib.sha256(f"{LAB_VERSION}\0{study.id}\0{configs.canonical(part)}".encode())
    texts = _code(_entry(study, arm, part), _stamp())
    digest.update(
        "\n".join(f"{module} {name} {text}" for (module, name), text in sorted(texts.items())).encode()
    )
    return digest.hexdigest()[:16]


def reachable(study: Study, arm: str) -> set[str]:
    """Dotted names of everything of assay that the trials of `arm` can reach."""
    texts = _code(_entry(study, arm, study.part(arm, study.config)), _stamp())
    return {f"{module}.{name}" for module, name in texts}


def _entry(study: Study, arm: str, part: Any) -> tuple[tuple[str, str], ...]:
    """Where the search begins: the arm's function, and the methods of its config (fields enter by value)."""
    function = study.experiment(arm).function
    kinds = {type(part)} | {type(value) for value in vars(part).values() if is_dataclass(value)}
    roots = {(function.__module__, function.__name__)} | {(k.__module__, f"{k.__name__}()") for k in kinds}
    return tuple(sorted(roots))


def _stamp() -> int:
    """Changes when a source file does, so that a long-lived process sees edits."""
    return max((p.stat().st_mtime_ns for root in _roots() for p in root.rglob("*.py")), default=0)


@lru_cache(maxsize=512)
def _code(roots: tuple[tuple[str, str], ...], stamp: int) -> dict[tuple[str, str], str]:
    """(module, name) -> canonical text of every definition reachable from `roots`."""
    seen: set[tuple[str, str]] = set()
    texts: dict[tuple[str, str], str] = {}
    todo = list(roots)
    while todo:
        item = todo.pop()
        if item in seen:
            continue
        seen.add(item)
        module = _module(item[0], stamp)
        if module is None:
            continue
        for node, name in module.find(item[1]):
            texts[(item[0], name)] = texts.get((item[0], name), "") + canonical(node)
            todo += module.references(node)
    return texts


def _roots() -> tuple[Path, ...]:
    """The folders that hold assay's source, its own first."""
    return (Path(__file__).resolve().parents[1], *registry.study_folders()[1:])


def _path(module: str) -> Path | None:
    """The file of an assay module, without importing it; None if it is none or lies outside the fingerprint."""
    if module != "assay" and not module.startswith("assay."):
        return None
    if any(module == name or module.startswith(name + ".") for name in _OUTSIDE):
        return None
    parts = module.split(".")[1:]
    folders = [_roots()[0]]
    if parts[:1] == ["studies"]:
        folders, parts = list(registry.study_folders()), parts[1:]
    for folder in folders:
        place = folder.joinpath(*parts)
        for candidate in (place.with_suffix(".py"), place / "__init__.py"):
            if candidate.is_file() and (parts or candidate.name == "__init__.py"):
                return candidate
    return None


class _Module:
    """The definitions of one module, by name."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        self.definitions: dict[str, list[ast.stmt]] = {}
        self.effects: list[ast.stmt] = []
        self.imports: dict[str, tuple[str, str]] = {}
        self._collect(ast.parse(path.read_text(encoding="utf-8")).body)

    def _collect(self, body: list[ast.stmt]) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                self.definitions.setdefault(node.name, []).append(node)
            elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
                if _builds_study(node):
                    continue
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                for target in targets:
                    for leaf in ast.walk(target):
                        if isinstance(leaf, ast.Name):
                            self.definitions.setdefault(leaf.id, []).append(node)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                self.imports |= self.imported(node)
            elif isinstance(node, ast.If | ast.Try | ast.With):
                for field in ("body", "orelse", "finalbody"):
                    self._collect(getattr(node, field, []))
                for handler in getattr(node, "handlers", []):
                    self._collect(handler.body)
            elif not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
                self.effects.append(node)

    def imported(self, node: ast.Import | ast.ImportFrom) -> dict[str, tuple[str, str]]:
        """Local name -> (assay module, name in it); the name is "" for a module itself."""
        found: dict[str, tuple[str, str]] = {}
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("assay"):
                    found[alias.asname or "assay"] = (alias.name if alias.asname else "assay", "")
            return found
        base = node.module or ""
        if node.level:
            parent = self.package.split(".")
            parent = parent[: len(parent) - node.level + 1]
            base = ".".join([*parent, base]) if base else ".".join(parent)
        if base == "assay" or base.startswith("assay."):
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                found[alias.asname or alias.name] = (inner, "") if _path(inner) else (base, alias.name)
        return found

    def find(self, name: str) -> Iterator[tuple[ast.AST, str]]:
        """The nodes that define `name`: "" is the whole module, "X()" only the methods of class X."""
        for effect in self.effects:
            yield effect, "<effects>"
        if name == "":
            for key, nodes in self.definitions.items():
                for node in nodes:
                    yield node, key
            for key, target in self.imports.items():
                yield _import_node(target), key
        elif name.endswith("()"):
            for node in self.definitions.get(name[:-2], []):
                for part in getattr(node, "body", []):
                    if isinstance(part, ast.FunctionDef):
                        yield part, name
        elif name in self.definitions:
            for node in self.definitions[name]:
                yield node, name
        elif name in self.imports:  # re-exported, as a package's __init__ does
            yield _import_node(self.imports[name]), name

    def references(self, node: ast.AST) -> list[tuple[str, str]]:
        """(module, name) of everything of assay that `node` mentions."""
        if isinstance(node, _Reexport):
            return [node.target]
        imports = dict(self.imports)
        nodes = list(_behaviour(node))
        for inner in nodes:
            if isinstance(inner, ast.Import | ast.ImportFrom):
                imports |= self.imported(inner)
        found: list[tuple[str, str]] = []
        chained: set[int] = set()
        for inner in nodes:
            if isinstance(inner, ast.Attribute) and id(inner) not in chained:
                chain, base = [inner.attr], inner.value
                while isinstance(base, ast.Attribute):
                    chained.add(id(base))
                    chain.append(base.attr)
                    base = base.value
                if isinstance(base, ast.Name) and base.id in imports:
                    module, name = imports[base.id]
                    if name == "":
                        chained.add(id(base))
                        chain.reverse()
                        while chain and _path(f"{module}.{chain[0]}"):
                            module = f"{module}.{chain.pop(0)}"
                        found.append((module, chain[0] if chain else ""))
        for inner in nodes:
            if isinstance(inner, ast.Name) and id(inner) not in chained:
                if inner.id in imports:
                    found.append(imports[inner.id])
                elif inner.id in self.definitions:
                    found.append((self.name, inner.id))
        return found


class _Reexport(ast.AST):
    _fields = ("module", "name")

    def __init__(self, target: tuple[str, str]) -> None:
        self.target = target
        self.module, self.name = target


def _import_node(target: tuple[str, str]) -> ast.AST:
    return _Reexport(target)


def _builds_study(node: ast.Assign | ast.AnnAssign | ast.AugAssign) -> bool:
    value = node.value
    return isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "Study"


@lru_cache(maxsize=512)
def _module(name: str, stamp: int) -> _Module | None:
    path = _path(name)
    return None if path is None else _Module(name, path)


def canonical(node: Any) -> str:
    """A syntax tree as text: no positions, docstrings or annotations, and the same in every Python version."""
    if isinstance(node, list):
        return f"[{','.join(map(canonical, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    parts = [f"{name}={canonical(value)}" for name, value in _fields(node)]
    return f"{type(node).__name__}({','.join(parts)})"


def _fields(node: ast.AST) -> Iterator[tuple[str, Any]]:
    """The fields of a node that decide what it does."""
    for name in node._fields:
        value = getattr(node, name, None)
        if name in _IDLE or value is None:
            continue
        if name == "body" and isinstance(value, list) and value and _is_docstring(value[0]):
            value = value[1:]
        if name == "decorator_list":
            value = [d for d in value if not _declares_trial(d)]
        if value != []:
            yield name, value


def _behaviour(node: Any) -> Iterator[ast.AST]:
    """Every node below `node` that decides what it does, itself first."""
    if isinstance(node, list):
        for item in node:
            yield from _behaviour(item)
    elif isinstance(node, ast.AST):
        yield node
        for _, value in _fields(node):
            yield from _behaviour(value)


def _is_docstring(node: Any) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _declares_trial(node: ast.AST) -> bool:
    call: Callable[..., Any] | ast.AST = node.func if isinstance(node, ast.Call) else node
    return isinstance(call, ast.Attribute) and call.attr in ("trial", "batch", "figure")
