"""Which modules a forward pass calls one after the other, by its source; nothing of it is run."""

import ast
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import NoReturn

from torch import nn

from dwp_init.attributes import child_of, is_called_as_usual, method_of, of_class, parts_in_order
from dwp_init.definition import definition
from dwp_init.functional import (
    CHANGING,
    KNOWN,
    MOVING,
    NAMES,
    NAMESPACES,
    SAME,
    Changed,
    Known,
    are_numbers,
    literal,
    rearranged,
)

_SIZES = ("shape", "ndim", "dtype", "device")
_MEASURES = ("size", "dim", "numel")
_ARITHMETIC = (ast.Add, ast.Sub, ast.Mult, ast.Div)
StepsOf = Callable[[nn.Module], list[nn.Module] | None]


def steps_of_pass(module: nn.Module, steps_of: StepsOf, read: set[FunctionType]) -> list[nn.Module] | None:
    """Returns the modules that a forward pass calls, each on what the one before returned; ``None`` if not sure.

    The pass must be a plain function that hands one tensor from call to call, up to what it returns. It may call the
    module's parts, one by one or in a loop over a ``ModuleList``, methods of its own that do so too, and the functions
    and methods of :mod:`dwp_init.functional`. For the latter, modules that do the same stand in the result, and
    otherwise a :class:`~dwp_init.functional.Changed` or :class:`~dwp_init.functional.Moved`. It must not branch, keep
    anything, or use a tensor again behind the next call, but for its shape.

    A pass that does more may still call one of its parts as one, see :func:`dwp_init.bytecode.only_calls`.

    Args:
        module: A module with a forward pass of its own.
        steps_of: Returns the same for a part of the module.
        read: Functions whose definitions were read; it grows. Whether these are those of their code is to be checked by
            :func:`dwp_init.definition.is_current`.
    """
    function = method_of(type(module), "forward")
    if function is None or not is_called_as_usual(module):
        return None
    try:
        return _steps(module, function, steps_of, read)
    except (_UnclearError, RecursionError):  # the latter: a method that calls itself
        return None


def _steps(
    module: nn.Module, function: FunctionType | None, steps_of: StepsOf, read: set[FunctionType]
) -> list[nn.Module]:
    found = definition(function) if function is not None else None
    if function is None or found is None:
        _unclear()
    read.add(function)
    return _Pass(module, function, found, steps_of, read).run(found.body)


class _UnclearError(Exception):
    """A forward pass does something else than to hand one tensor on."""


def _unclear() -> NoReturn:
    raise _UnclearError


class _Pass:
    """What is known at a statement of a forward pass: what its names stand for, and the calls so far."""

    def __init__(
        self,
        module: nn.Module,
        function: FunctionType,
        found: ast.FunctionDef,
        steps_of: StepsOf,
        read: set[FunctionType],
    ) -> None:
        given = [each.arg for each in (*found.args.posonlyargs, *found.args.args)]
        if len(given) < 2:
            _unclear()
        self._self, self._module, self._steps_of, self._read = given[0], module, steps_of, read
        self._globals, self._locals = function.__globals__, frozenset(function.__code__.co_varnames)
        self._tensors = {given[1]: 0}  # names, and how many calls there were when they were bound
        self._parts: dict[str, nn.Module] = {}  # variables of loops
        self._plain: set[str] = set()  # names of sizes and the like
        self._calls = 0
        self._steps: list[nn.Module] = []

    def run(self, body: Sequence[ast.stmt]) -> list[nn.Module]:
        *statements, last = body
        for statement in statements:
            self._follow(statement)
        if not isinstance(last, ast.Return) or last.value is None:
            _unclear()
        self._check_is_last(last.value)
        return self._steps

    def _follow(self, statement: ast.stmt) -> None:
        match statement:
            case ast.Expr(ast.Constant()) | ast.Pass():
                pass
            case ast.Expr(ast.Call(ast.Name("print"), arguments, [])) if self._is_built_in("print"):
                if not all(map(self._is_plain, arguments)):
                    _unclear()
            case ast.Assert(ast.Compare(left, _, others), message):
                if not all(map(self._is_plain, (left, *others, *([message] if message else [])))):
                    _unclear()
            case ast.Assign([ast.Tuple(targets)], value) if self._is_plain(value):
                for target in targets:
                    self._bind(target, value)
            case ast.Assign([target], value) | ast.AnnAssign(target, _, ast.expr() as value):
                self._bind(target, value)
            case ast.For(ast.Name(name), iterable, body, []):
                self._loop(name, iterable, body)
            case _:
                _unclear()

    def _bind(self, target: ast.expr, value: ast.expr) -> None:
        if not isinstance(target, ast.Name) or target.id == self._self:
            _unclear()
        calls = None if self._is_plain(value) else self._calls_before(value)
        self._forget(target.id)
        if calls is None:
            self._plain.add(target.id)
        else:
            self._tensors[target.id] = calls

    def _forget(self, name: str) -> None:
        self._tensors.pop(name, None)
        self._parts.pop(name, None)
        self._plain.discard(name)

    def _loop(self, name: str, iterable: ast.expr, body: Sequence[ast.stmt]) -> None:
        if name == self._self:
            _unclear()
        for part in parts_in_order(self._part(iterable)) or _unclear():
            self._forget(name)
            self._parts[name] = part
            for statement in body:
                self._follow(statement)
        self._forget(name)

    def _check_is_last(self, expression: ast.expr) -> None:
        if self._calls_before(expression) != self._calls:
            _unclear()

    def _calls_before(self, expression: ast.expr) -> int:
        """Reads an expression, and returns how many calls made its tensor what it is."""
        match expression:
            case ast.Name(name) if name in self._tensors:
                return self._tensors[name]
            case ast.Call(function, [*arguments], options):
                self._call(function, arguments, options)
            case ast.BinOp(left, operator, right) if isinstance(operator, _ARITHMETIC):
                if self._is_plain(left) == self._is_plain(right):
                    _unclear()
                self._check_is_last(right if self._is_plain(left) else left)
                self._steps.append(Changed())
            case _:
                _unclear()
        self._calls += 1
        return self._calls

    def _call(self, function: ast.expr, arguments: Sequence[ast.expr], options: Sequence[ast.keyword]) -> None:
        part, method = self._part(function), self._method(function)
        if part is not None or method is not None:
            if options or len(arguments) != 1:
                _unclear()
            self._check_is_last(arguments[0])
            steps = self._steps_of(part) if part is not None else self._own(method)
            self._steps += steps if steps is not None else _unclear()
            return
        found = self._global(function)
        if found is None and isinstance(function, ast.Attribute):
            given, name = function.value, function.attr  # a method of a tensor
        elif arguments and id(found) in NAMES:
            (given, *arguments), name = arguments, NAMES[id(found)]
        else:
            _unclear()
        self._check_is_last(given)
        self._apply(name, arguments, options)

    def _own(self, method: FunctionType | None) -> list[nn.Module]:
        return _steps(self._module, method, self._steps_of, self._read)

    def _apply(self, name: str, arguments: Sequence[ast.expr], options: Sequence[ast.keyword]) -> None:
        """Adds what a function or method of this name does."""
        if not all(map(self._is_plain, (*arguments, *(each.value for each in options)))):
            _unclear()
        if name in KNOWN:
            self._steps.append(self._made(KNOWN[name], arguments, options))
        elif name in CHANGING:
            self._steps.append(Changed())
        elif name in MOVING:
            self._steps.append(rearranged(name, arguments, options))
        elif name not in SAME:
            _unclear()

    def _made(self, known: Known, arguments: Sequence[ast.expr], options: Sequence[ast.keyword]) -> nn.Module:
        given = {each.arg: each.value for each in options}
        if len(arguments) > len(known.options) or given.keys() - set(known.options):
            _unclear()
        given |= dict(zip(known.options, arguments, strict=False))
        values = {str(name): self._value(each) for name, each in given.items() if name in known.used}
        if not all(are_numbers(value, known.sized) for value in values.values()):
            _unclear()
        return known.made(values) or _unclear()

    def _value(self, expression: ast.expr) -> object:
        """Returns what a literal or a plain attribute of the module stands for; of others, the expression."""
        match expression:
            case ast.Attribute(ast.Name(self._self), name):
                return vars(self._module).get(name, expression)
            case _:
                return literal(expression)

    def _is_plain(self, expression: ast.expr) -> bool:
        """Whether an expression is made of constants, attributes of the module, and sizes of tensors."""
        match expression:
            case ast.Constant():
                return True
            case ast.Name(name):
                return name in self._plain or (name not in self._locals and name in self._globals)
            case ast.Attribute(ast.Name(name), attribute) if name in self._tensors:
                return attribute in _SIZES
            case ast.Attribute(ast.Name(self._self), name):
                return not of_class(type(self._module), name)
            case ast.Attribute(value, _) | ast.UnaryOp(ast.USub(), value):
                return self._is_plain(value)
            case ast.Call(ast.Attribute(ast.Name(name), method), arguments, []) if name in self._tensors:
                return method in _MEASURES and all(map(self._is_plain, arguments))
            case ast.Call(ast.Name("len"), [ast.Name(name)], []):
                return name in self._tensors and self._is_built_in("len")
            case ast.Tuple(parts) | ast.List(parts):
                return all(map(self._is_plain, parts))
            case ast.BinOp(left, _, right) | ast.Subscript(left, right):
                return self._is_plain(left) and self._is_plain(right)
            case ast.Slice(low, high, None):
                return all(each is None or self._is_plain(each) for each in (low, high))
            case _:
                return False

    def _is_built_in(self, name: str) -> bool:
        return name not in {*self._locals, *self._globals}

    def _part(self, expression: ast.expr) -> nn.Module | None:
        """Returns the module that an expression stands for; ``None`` if it is another."""
        match expression:
            case ast.Name(self._self):
                return None
            case ast.Name(name):
                return self._parts.get(name)
            case ast.Attribute(ast.Name(self._self), name):
                return child_of(self._module, name)
            case ast.Attribute(value, name):
                around = self._part(value)
                return None if around is None else child_of(around, name)
            case ast.Subscript(value, ast.Constant(int(place))):
                parts = parts_in_order(self._part(value)) or []
                return parts[place] if -len(parts) <= place < len(parts) else None
            case _:
                return None

    def _method(self, expression: ast.expr) -> FunctionType | None:
        """Returns the method of the module that an expression stands for; ``None`` if it is another."""
        match expression:
            case ast.Attribute(ast.Name(self._self), name) if name not in vars(self._module):
                return method_of(type(self._module), name)
            case _:
                return None

    def _global(self, expression: ast.expr) -> object:
        """Returns the function or namespace of torch that an expression stands for; ``None`` if it is another."""
        match expression:
            case ast.Name(name):
                return None if name in self._locals else self._globals.get(name)
            case ast.Attribute(ast.Name(self._self), name):
                return None if of_class(type(self._module), name) else vars(self._module).get(name)
            case ast.Attribute(value, name):
                space = self._global(value)
                return vars(space).get(name) if any(space is each for each in NAMESPACES) else None
            case _:
                return None
