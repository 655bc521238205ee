"""Read a pickle as plain data, without creating any object that it asks for.

A pickle is a small program: it names classes and functions, calls them and sets the state of the results. This module
never looks up, imports or calls anything. A name becomes a `Name`; a call or a new object becomes a `Record` of the
name, its arguments and its state; a reference to a file beside the pickle becomes a `Stored`. The caller decides what
these mean. Only the instructions that `torch.save` writes (protocol 2) are supported, and each name must be allowed.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

MOST_INSTRUCTIONS = 4_000_000
MOST_BITS = 63  # of an integer
SCALARS = (str, int, float, bool, type(None))
# Protocol 2 writes Python 2's module names.
_OLD_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg"}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class RefusedPickle(ValueError):
    """The pickle contains something that is not allowed. The message is a clause that says what."""


@dataclass(frozen=True, eq=False)
class Name:
    """A class or function that the pickle names, such as `collections.OrderedDict`; never looked up."""

    name: str


@dataclass(frozen=True, eq=False, repr=False)  # its content may be recursive without end
class Stored:
    """A reference to a file beside the pickle, as `torch.save` writes them."""

    reference: Any


@dataclass(eq=False, repr=False)
class Record:
    """The object that a call or a construction would have created.

    Attributes:
        name: of the class or function.
        arguments: of the call.
        called: by REDUCE; False: created without its constructor (NEWOBJ).
        state: from BUILD; None: no state.
        items: set as on a dict.
        entries: appended as to a list.
    """

    name: str
    arguments: tuple[Any, ...]
    called: bool
    state: Any = None
    items: dict[Any, Any] = field(default_factory=dict)
    entries: list[Any] = field(default_factory=list)


def read_pickle(data: bytes, check: Callable[[str, bool], None]) -> Any:
    """Read a pickle of protocol 2: None, numbers, text, lists, tuples, dicts, sets, and the three classes above.

    `collections.OrderedDict` and `builtins.set` become a dict and a set.

    Args:
        data: the pickle.
        check: receives every name, and whether it is called; raises `RefusedPickle` if that is not allowed.

    Raises:
        RefusedPickle: a name that `check` refuses, an instruction that `torch.save` never writes, or too many
            instructions.
        ValueError: not a pickle, or a damaged one.
    """
    machine = _Machine(check)
    for count, (instruction, argument, _) in enumerate(pickletools.genops(data)):
        if count >= MOST_INSTRUCTIONS:
            raise RefusedPickle(f"its pickle has more than {MOST_INSTRUCTIONS:,} instructions")
        machine.step(instruction.name, argument)
    return machine.result()


class _Machine:
    """The stack, the marks and the memo of a pickle."""

    def __init__(self, check: Callable[[str, bool], None]) -> None:
        self._check = check
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []  # the stacks below each mark
        self._memo: dict[int, Any] = {}
        self._steps: dict[str, Callable[[Any], None]] = {
            "PROTO": lambda _: None,
            "STOP": lambda _: None,
            "MARK": self._mark,
            "POP": lambda _: self._pop() and None,
            "BININT": self._number,
            "BININT1": self._number,
            "BININT2": self._number,
            "LONG1": self._number,
            "BINFLOAT": self._push,
            "BINUNICODE": self._push,
            "SHORT_BINSTRING": self._push,
            "EMPTY_LIST": lambda _: self._push([]),
            "EMPTY_DICT": lambda _: self._push({}),
            "TUPLE": lambda _: self._push(tuple(self._above_mark())),
            "APPEND": lambda _: self._append([self._pop()]),
            "APPENDS": lambda _: self._append(self._above_mark()),
            "SETITEM": lambda _: self._set(self._take(2)),
            "SETITEMS": lambda _: self._set(self._above_mark()),
            "GLOBAL": self._name,
            "REDUCE": lambda _: self._make(called=True),
            "NEWOBJ": lambda _: self._make(called=False),
            "BUILD": lambda _: self._build(),
            "BINPUT": self._remember,
            "LONG_BINPUT": self._remember,
            "BINGET": self._recall,
            "LONG_BINGET": self._recall,
            "BINPERSID": lambda _: self._push(Stored(self._pop())),
        }

    def step(self, instruction: str, argument: Any) -> None:
        if instruction in _CONSTANTS:
            self._push(_CONSTANTS[instruction])
        elif instruction in _TUPLES:
            self._push(tuple(self._take(_TUPLES[instruction])))
        elif instruction in self._steps:
            self._steps[instruction](argument)
        else:
            raise RefusedPickle(f"its pickle has the instruction {instruction}, which torch.save never writes")

    def result(self) -> Any:
        if len(self._stack) != 1 or self._marked:
            _damaged()
        return self._stack[0]

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _number(self, value: int) -> None:
        if value.bit_length() > MOST_BITS:
            raise RefusedPickle("it holds a number of more than 63 bits")
        self._stack.append(value)

    def _pop(self) -> Any:
        return self._take(1)[0]

    def _take(self, count: int) -> list[Any]:
        if len(self._stack) < count:
            _damaged()
        taken = self._stack[len(self._stack) - count :]
        del self._stack[len(self._stack) - count :]
        return taken

    def _mark(self, _: Any) -> None:
        self._marked.append(self._stack)
        self._stack = []

    def _above_mark(self) -> list[Any]:
        if not self._marked:
            _damaged()
        taken, self._stack = self._stack, self._marked.pop()
        return taken

    def _append(self, values: list[Any]) -> None:
        target = self._top()
        if isinstance(target, Record):
            target = target.entries
        if not isinstance(target, list):
            _damaged()
        target.extend(values)

    def _set(self, flat: list[Any]) -> None:
        target = self._top()
        if isinstance(target, Record):
            target = target.items
        if not isinstance(target, dict) or len(flat) % 2:
            _damaged()
        for key, value in zip(flat[::2], flat[1::2], strict=True):
            # Hashing nested tuples as keys might never end, and lists can't be hashed at all.
            target[key if isinstance(key, SCALARS) else Record("key", (key,), False)] = value

    def _top(self) -> Any:
        if not self._stack:
            _damaged()
        return self._stack[-1]

    def _name(self, argument: str) -> None:
        module, _, attribute = argument.partition(" ")
        name = f"{_OLD_MODULES.get(module, module)}.{attribute}"
        self._check(name, False)
        self._stack.append(Name(name))

    def _make(self, *, called: bool) -> None:
        what, arguments = self._take(2)
        if not isinstance(what, Name) or not isinstance(arguments, tuple):
            raise RefusedPickle("its pickle calls something that is not a name, or without arguments")
        self._check(what.name, called)
        self._stack.append(_container(what.name, arguments) if called else Record(what.name, arguments, False))

    def _build(self) -> None:
        target, state = self._take(2)
        if isinstance(target, Record):
            if target.state is not None:
                raise RefusedPickle(f"its pickle gives `{target.name}` a state twice")
            target.state = state
        elif not isinstance(target, dict):  # an OrderedDict's own attributes, such as `_metadata`, are not needed
            _damaged()
        self._stack.append(target)

    def _remember(self, key: int) -> None:
        self._memo[key] = self._top()

    def _recall(self, key: int) -> None:
        if key not in self._memo:
            _damaged()
        self._stack.append(self._memo[key])


def _container(name: str, arguments: tuple[Any, ...]) -> Any:
    """Return the dict or set that the call creates, else the call's record."""
    if name == "collections.OrderedDict":
        pairs = arguments[0] if len(arguments) == 1 else []
        if isinstance(pairs, list) and all(_is_pair(pair) for pair in pairs):
            return dict(pairs)
    if name == "builtins.set" and len(arguments) == 1 and isinstance(arguments[0], list | tuple):
        if all(isinstance(value, SCALARS) for value in arguments[0]):
            return set(arguments[0])
        raise RefusedPickle("it holds a set of something that is neither text nor numbers")
    return Record(name, arguments, True)


def _is_pair(pair: Any) -> bool:
    return isinstance(pair, list | tuple) and len(pair) == 2 and isinstance(pair[0], SCALARS)


def _damaged() -> NoReturn:
    raise ValueError("its pickle is damaged")
