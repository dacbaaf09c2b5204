"""The definition of a function as a syntax tree, checked against its code."""

import ast
import dis
import inspect
import linecache
import threading
import tokenize
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from types import CodeType, FunctionType

_MOST_FILES = 16
_LONGEST = 1_000_000  # characters of a file
_LOCK = threading.RLock()  # filters of warnings are one list for all threads


def definition(function: FunctionType) -> ast.FunctionDef | None:
    """Returns what stands in the source of a function's file, or cell of a notebook, where the function begins.

    ``None`` where there is no source, as at the prompt of older versions of Python, and where the function has
    branches, but for assertions, or variables of functions around it. The source may be of another time than the code,
    or of a decorator: see :func:`is_current`.
    """
    code = function.__code__
    instructions = list(dis.get_instructions(code))
    branches = sum("_IF_" in each.opname for each in instructions) - sum(map(_loads_assertion_error, instructions))
    if code.co_freevars or branches > 0:
        return None  # branches would be found in the source too, but later
    return _file_of(function).function_at(code.co_firstlineno)


def _loads_assertion_error(instruction: dis.Instruction) -> bool:
    """Whether an assertion has this instruction; the name ``AssertionError`` in the source is loaded otherwise."""
    name, loaded = instruction.opname, instruction.argrepr
    return name == "LOAD_ASSERTION_ERROR" or (name, loaded) == ("LOAD_COMMON_CONSTANT", "AssertionError")  # from 3.14


def is_current(function: FunctionType) -> bool:
    """Whether the definition of a function is that of its code: not if the file was changed after it was imported."""
    file, code = _file_of(function), function.__code__
    place = code.co_firstlineno, code.co_name
    return file.functions[place] == 1 and [*map(_parts, file.codes.get(place, []))] == [_parts(code)]


_Place = tuple[int, str]  # first line and name


class _File:
    """The source of a file as ``linecache`` has it."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines
        self._at: dict[int, ast.FunctionDef | None] = {}

    def function_at(self, line: int) -> ast.FunctionDef | None:
        """Returns the function that begins at a line, counted from 1, without a look at the rest of the file."""
        if line not in self._at:
            self._at[line] = self._read(line)
        return self._at[line]

    def _read(self, line: int) -> ast.FunctionDef | None:
        try:
            lines = inspect.getblock(self.lines[line - 1 :])
            nested = lines[0][:1].isspace()
            tree = _parsed("".join(["if True:\n", *lines] if nested else lines))
        except (SyntaxError, ValueError, IndexError, RecursionError, MemoryError, tokenize.TokenError):
            return None
        found = [each for each in ast.walk(tree) if isinstance(each, ast.FunctionDef)]
        return found[0] if len(found) == 1 and not any(map(_is_mangled, ast.walk(found[0]))) else None

    @cached_property
    def _tree(self) -> ast.Module:
        try:
            return _parsed("".join(self.lines))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return ast.Module([], [])

    @cached_property
    def functions(self) -> Counter[_Place]:
        """How many functions of a name begin in a line."""
        nodes = ast.walk(self._tree)
        return Counter((each.lineno, each.name) for each in nodes if isinstance(each, ast.FunctionDef))

    @cached_property
    def codes(self) -> dict[_Place, list[CodeType]]:
        """All code of the file: that of a function depends on what is imported."""
        found: dict[_Place, list[CodeType]] = {}
        with suppress(SyntaxError, ValueError, RecursionError, MemoryError):
            for each in _inside(_compiled(self._tree)):
                found.setdefault((each.co_firstlineno, each.co_name), []).append(each)
        return found


_FILES: dict[str, _File] = {}


def _file_of(function: FunctionType) -> _File:
    name = function.__code__.co_filename
    try:
        linecache.checkcache(name)
        lines = linecache.getlines(name, function.__globals__)
    except Exception:  # a loader that finds no source may raise anything
        return _File([])
    with _LOCK:
        file = _FILES.get(name)
        if file is None or file.lines is not lines:
            if len(_FILES) >= _MOST_FILES:
                _FILES.clear()
            file = _FILES[name] = _File(lines)
    return file if sum(map(len, lines)) <= _LONGEST else _File([])


def _is_mangled(node: ast.AST) -> bool:
    """Whether a class changes the name of a variable or an attribute."""
    match node:
        case ast.Name(name) | ast.Attribute(_, name) | ast.arg(name):
            return name.startswith("__") and not name.endswith("__")
        case _:
            return False


def _parsed(source: str) -> ast.Module:
    with _LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they were shown when the file was imported
        return ast.parse(source)


def _compiled(tree: ast.Module) -> CodeType:
    with _LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return compile(tree, "", "exec", dont_inherit=True)


def _inside(code: CodeType) -> Iterator[CodeType]:
    yield code
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from _inside(each)


def _parts(code: CodeType) -> tuple[object, ...]:
    """Returns what decides what a code does; ``repr`` tells 1 from 1.0 and True."""
    counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount)
    return code.co_code, repr(code.co_consts), code.co_names, code.co_varnames, *counts
