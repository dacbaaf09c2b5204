"""What the tree looks like, read with ``ast``: sizes, imports and names. ``python -m tests.house [ROOT]`` prints it."""

import ast
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

FLOORS = (  # folders of training/, from the lowest floor up; a floor imports lower ones only
    (
        "images",
        "figures",
    ),
    ("engine",),
    ("networks",),
    ("kernels",),
    ("starts", "fits"),
    ("experiments",),
    ("recipes",),
    ("publish",),
)
CODE = ("dwp_init", "space", "training")
PROTOCOL = {"FOLDER", "PRIORS", "DATA", "SMALL", "BUDGET", "stages"}  # what any recipe may define
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """A file of the tree and what is in it."""

    root: Path
    path: Path

    @cached_property
    def name(self) -> str:
        """The name that it is imported by, such as ``training.engine.run``."""
        return ".".join(self.path.relative_to(self.root).with_suffix("").parts).removesuffix(".__init__")

    @cached_property
    def folder(self) -> str:
        """The folder of ``training/`` that it is in; empty for files of ``training/`` itself and outside."""
        parts = self.path.relative_to(self.root).parts
        return parts[1] if parts[0] == "training" and len(parts) > 2 else ""

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def lines(self) -> int:
        return len(self.text.splitlines())

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    def defined(self) -> Iterator[str]:
        """Names of the functions, classes and constants at the top level, under a condition too."""
        nodes: list[ast.AST] = [*self.tree.body]
        for node in nodes:
            if isinstance(node, (*Function.__args__, ast.ClassDef)):
                yield node.name
            elif isinstance(node, (ast.If, ast.Try, ast.With, ast.For, ast.While, ast.ExceptHandler)):
                nodes += ast.iter_child_nodes(node)
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            yield from {name.id for target in targets if target for name in ast.walk(target) if type(name) is ast.Name}

    def functions(self) -> Iterator[tuple[str, int]]:
        """Names of all functions, and their lines of code without the docstring, comments and blank lines."""
        for node in ast.walk(self.tree):
            if isinstance(node, Function):
                has_docstring = ast.get_docstring(node) is not None
                start, end = (node.body[0].lineno, node.body[0].end_lineno) if has_docstring else (0, 0)
                numbers = [n for n in range(node.lineno, node.end_lineno + 1) if not start <= n <= end]
                texts = [self.text.splitlines()[n - 1].strip() for n in numbers]
                yield f"{self.name}.{node.name}", sum(bool(text) and not text.startswith("#") for text in texts)

    def imported(self) -> Iterator[tuple[str, str]]:
        """What it imports as pairs of a module and a name in it; the name is empty for ``import module``."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((alias.name, "") for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield from ((self._absolute(node), alias.name) for alias in node.names)

    def _absolute(self, node: ast.ImportFrom) -> str:
        """The module that ``from … import`` names, where it is relative too."""
        above = self.path.relative_to(self.root).parts[: -node.level] if node.level else ()
        return ".".join([*above, *([node.module] if node.module else [])])

    def classes(self) -> Iterator[tuple[str, set[str]]]:
        """The classes at the top level, each with the names of its bases."""
        for node in self.tree.body:
            if isinstance(node, ast.ClassDef):
                yield node.name, {ast.unparse(base).split("[")[0].split(".")[-1] for base in node.bases}

    def calls(self, name: str) -> int:
        """How many calls of a function or method of this name there are."""
        called = [node.func for node in ast.walk(self.tree) if isinstance(node, ast.Call)]
        return sum(name in (getattr(node, "attr", None), getattr(node, "id", None)) for node in called)


@dataclass(frozen=True)
class House:
    """The modules of a clone, below ``root``."""

    root: Path

    @cached_property
    def code(self) -> dict[str, Module]:
        """Modules of the package and of the pipeline by name."""
        return self._read(CODE)

    @cached_property
    def tests(self) -> dict[str, Module]:
        """Modules of the tests by name."""
        return self._read(("tests",))

    def _read(self, folders: Iterable[str]) -> dict[str, Module]:
        paths = sorted(path for folder in folders for path in (self.root / folder).rglob("*.py"))
        return {module.name: module for module in (Module(self.root, path) for path in paths)}

    @cached_property
    def imports(self) -> dict[str, dict[str, set[str]]]:
        """For each module the modules of this tree that it imports, each with the names that it takes from there."""
        found: dict[str, dict[str, set[str]]] = {name: {} for name in self.code}
        for name, module in self.code.items():
            for source, taken in module.imported():
                target = f"{source}.{taken}" if f"{source}.{taken}" in self.code else source
                if target in self.code and target != name:
                    found[name].setdefault(target, set()).add(taken)
        return found

    @cached_property
    def stages(self) -> dict[str, str]:
        """Classes that descend from ``Stage``, each with the module that defines it."""
        bases = {cls: (name, of) for name, module in self.code.items() for cls, of in module.classes()}
        found, grown = {"Stage"}, True
        while grown:
            more = {cls for cls, (_, of) in bases.items() if of & found} - found
            found, grown = found | more, bool(more)
        return {cls: bases[cls][0] for cls in sorted(found - {"Stage"})}

    def twins(self) -> dict[str, list[str]]:
        """Public names that several modules define; what each recipe defines by protocol is left out."""
        places: dict[str, list[str]] = {}
        for name, module in self.code.items():
            for defined in set(module.defined()):
                protocol = defined in PROTOCOL and name.startswith("training.recipes")
                if not defined.startswith("_") and defined != "main" and not protocol:
                    places.setdefault(defined, []).append(name)
        return {defined: where for defined, where in sorted(places.items()) if len(where) > 1}

    def wrong_ways(self) -> list[str]:
        """Imports of the package and of folders of ``training/`` that do not point down, by :data:`FLOORS`.

        Files of ``training/`` itself are above all folders.
        """
        floors = {folder: floor for floor, folders in enumerate(FLOORS) for folder in folders}
        found = []
        for name, targets in self.imports.items():
            for target in targets:
                here, there = self.code[name].folder, self.code[target].folder
                outside = name.startswith("dwp_init") and target.startswith("training")
                top = target.startswith("training.") and not there
                known = here in floors and there in floors
                if outside or (here and top) or (known and here != there and floors[there] >= floors[here]):
                    found.append(f"{name} imports {target}")
        return found

    def sideways(self) -> list[str]:
        """Imports of a stage file by another of its folder that does not define a subclass of a class there."""
        files = set(self.stages.values())
        bases = {cls: of for module in self.code.values() for cls, of in module.classes()}
        own = {name: {cls for cls, _ in module.classes()} for name, module in self.code.items()}
        above = {name: set().union(*(_ancestors(cls, bases) for cls in own[name])) for name in files}
        return [
            f"{name} imports {target}"
            for name in sorted(files)
            for target in self.imports[name]
            if target in files and self.code[target].folder == self.code[name].folder and not own[target] & above[name]
        ]

    def cycle(self) -> list[str]:
        """Modules that import each other in a circle, or nothing."""
        try:
            list(TopologicalSorter(self.imports).static_order())
        except CycleError as error:
            return list(error.args[1])
        return []


def _ancestors(cls: str, bases: Mapping[str, set[str]]) -> set[str]:
    """Names of the classes from which a class descends."""
    direct = bases.get(cls, set())
    return direct.union(*(_ancestors(base, bases) for base in direct - {cls}))


def floors(imports: Mapping[str, Iterable[str]]) -> int:
    """The length of the longest chain of imports; 0 if they run in a circle."""
    depth: dict[str, int] = {}
    try:
        for name in TopologicalSorter(imports).static_order():
            depth[name] = 1 + max((depth[target] for target in imports.get(name, ())), default=0)
    except CycleError:
        return 0
    return max(depth.values())


def folder_imports(house: House) -> dict[str, set[str]]:
    """For each folder of ``training/`` the other folders that its modules import."""
    found: dict[str, set[str]] = {}
    for name, targets in house.imports.items():
        if here := house.code[name].folder:
            found.setdefault(here, set()).update({house.code[target].folder for target in targets} - {here, ""})
    return found


def figures(house: House) -> dict[str, object]:
    """The figures of the acceptance, by name."""
    code, training = house.code.values(), [m for n, m in house.code.items() if n.startswith("training")]
    longest = max(((lines, name) for module in code for name, lines in module.functions()), default=(0, ""))
    lines = sum(module.lines for module in code)
    return {
        "lines of dwp_init": lines - sum(module.lines for module in training),
        "lines of training": sum(module.lines for module in training),
        "lines of tests per line of code": round(sum(module.lines for module in house.tests.values()) / lines, 3),
        "longest file": max((module.lines, module.name) for module in code),
        "longest function": longest,
        "floors of modules in training": floors({m.name: house.imports[m.name] for m in training}),
        "floors of folders in training": floors(folder_imports(house)),
        "imports that do not point down": len(house.wrong_ways()),
        "imports between stage files": len(house.sideways()),
        "modules in a circle": len(house.cycle()),
        "public names defined twice": len(house.twins()),
        "calls of backward in training": sum(module.calls("backward") for module in training),
        "calls of run_jobs": sum(module.calls("run_jobs") for module in code),
        "tests that import private names": len(private_imports(house)),
    }


def private_imports(house: House) -> list[str]:
    """Names with a leading underscore that tests import."""
    return [
        f"{name} imports {source}.{taken}"
        for name, module in house.tests.items()
        for source, taken in module.imported()
        if any(part.startswith("_") and not part.endswith("__") for part in (*source.split("."), taken))
    ]


if __name__ == "__main__":
    here = House(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parents[1])
    print("\n".join(f"{name:34} {value}" for name, value in figures(here).items()))
