"""A pickle machine that calls nothing.

Python's own unpickler runs what a file asks for; a checkpoint is a stranger's file. This machine interprets the opcodes itself and knows
four things: plain containers and numbers, ordered dictionaries, views of tensor storages (as inert `TensorView` records), and everything
else, which becomes an inert `Placeholder`: published training checkpoints hold configuration objects, and they are simply not built.
There is no code path from a file to a function call. A file that names something that acts on the machine (`os.system`, `builtins.eval`)
is refused outright, although it could do nothing here.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import IO, Any, Final, TypeAlias

from ..errors import PromptSegError, UnsafeFile, WeightsError
from .inert import Name, Placeholder, StorageKey, checked, describe, key, storage_key

MAX_OPCODES: Final = 5_000_000  # a published checkpoint has some ten thousand; this is seconds of work, not hours
MAX_COPIED: Final = 500_000  # items of lists handed to calls: Python 2 wrote ordered dictionaries so, a few hundred items each


def parse(stream: IO[bytes] | bytes) -> tuple[Any, list[StorageKey]]:
    """The object that one pickle describes and the storages it speaks of; a stream is left right behind the pickle.

    Raises:
        UnsafeFile: the pickle names something that acts on the machine.
        WeightsError: it is not a well-formed pickle, or describes tensors that cannot be.
    """
    machine = _Machine()
    try:
        return machine.run(pickletools.genops(stream)), machine.storages
    except PromptSegError:
        raise
    except Exception as error:  # truncated or garbled bytes fail in many ways; all of them mean the same
        raise WeightsError(f"The file is not a readable checkpoint ({type(error).__name__}: {str(error)[:100]}). Get it again.") from None


@dataclass(slots=True)
class _Machine:
    """The stack machine of the pickle format (see the opcodes in the standard library's `pickletools`)."""

    stack: list[Any] = field(default_factory=list)
    marked: list[list[Any]] = field(default_factory=list)  # the stacks below each mark
    memo: dict[int, Any] = field(default_factory=dict)
    storages: list[StorageKey] = field(default_factory=list)  # in the order in which the file speaks of them
    copied: int = 0  # items of lists handed to calls

    def run(self, opcodes: Iterable[tuple[pickletools.OpcodeInfo, Any, int | None]]) -> Any:
        for count, (opcode, argument, _) in enumerate(opcodes):
            if count > MAX_OPCODES:
                raise WeightsError(f"The checkpoint's index has more than {MAX_OPCODES} instructions; no published one does.")
            if opcode.name == "STOP":
                return self.stack.pop()
            self._step(opcode.name, argument)
        raise WeightsError("The checkpoint ends in the middle of its index. Get it again.")

    def _step(self, name: str, argument: Any) -> None:
        if name in _VALUES:
            huge = isinstance(argument, int) and argument.bit_length() > 128  # no message could show it
            self.stack.append(Placeholder("huge number") if huge else argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        else:
            _OPERATIONS[name](self, argument)

    def pop_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marked.pop()
        return items

    def mark(self, _: Any) -> None:
        self.marked.append(self.stack)
        self.stack = []

    def fold(self, count: int) -> None:
        items = tuple(self.stack[-count:])
        if len(items) < count:
            raise WeightsError("The checkpoint's index is garbled. Get it again.")
        self.stack[-count:] = [items]

    def remember(self, key: int | None) -> None:
        place = len(self.memo) if key is None else key
        if not 0 <= place < 2**32:  # what four bytes hold; of larger numbers a million can hash alike
            raise WeightsError("The checkpoint's index is garbled: it counts beyond its end. Get it again.")
        self.memo[place] = self.stack[-1]

    def extend(self, items: Iterable[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Placeholder):
            raise WeightsError("The checkpoint's index is garbled: items are added to what is no list. Get it again.")

    def update(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, dict):
            target.update((key(name), value) for name, value in zip(items[::2], items[1::2], strict=True))
        elif not isinstance(target, Placeholder):
            raise WeightsError("The checkpoint's index is garbled: entries are added to what is no dictionary. Get it again.")

    def name(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise WeightsError("The checkpoint's index is garbled: a name is no text. Get it again.")
        self.stack.append(checked(Name(module, name)))

    def storage(self, _: Any) -> None:
        self.storages.append(storage_key(self.stack.pop()))
        self.stack.append(self.storages[-1])

    def reduce(self, arguments: Any, target: Any) -> None:
        if arguments and isinstance(arguments, tuple) and isinstance(arguments[0], (list, tuple)):
            self.copied += len(arguments[0])  # a long list handed to many calls would fill the memory from a small file
            if self.copied > MAX_COPIED:
                raise WeightsError("The checkpoint's index copies the same lists over and over; no published one does.")
        self.stack.append(describe(target, arguments))

    def build(self, _: Any) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], Placeholder):
            self.stack[-1].state = state


def _instance(machine: _Machine, _: Any) -> None:
    """OBJ: a class and its arguments lie above the mark."""
    target, *arguments = machine.pop_mark()
    machine.reduce(tuple(arguments), target)


def _old_instance(machine: _Machine, argument: str) -> None:
    """INST: the class stands in the opcode, its arguments above the mark."""
    arguments = tuple(machine.pop_mark())
    machine.name(*argument.split(" ", 1))
    machine.reduce(arguments, machine.stack.pop())


def _new_with_keywords(machine: _Machine, _: Any) -> None:
    _, arguments, target = (machine.stack.pop() for _ in range(3))
    machine.reduce(arguments, target)


def _extension(machine: _Machine, argument: Any) -> None:
    raise UnsafeFile("The file uses pickle's extension registry, which no checkpoint needs. It was not loaded; nothing of it was run.")


_VALUES: Final = {
    "BINBYTES", "BINBYTES8", "BINFLOAT", "BININT", "BININT1", "BININT2", "BINSTRING", "BINUNICODE", "BINUNICODE8", "BYTEARRAY8",
    "FLOAT", "INT", "LONG", "LONG1", "LONG4", "SHORT_BINBYTES", "SHORT_BINSTRING", "SHORT_BINUNICODE", "STRING", "UNICODE",
}  # fmt: skip
_CONSTANTS: Final[dict[str, Callable[[], Any]]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": list,  # sets are kept as lists: nothing foreign is hashed
}
_Operation: TypeAlias = Callable[[_Machine, Any], Any]
_OPERATIONS: Final[dict[str, _Operation]] = {
    "PROTO": lambda m, a: None,
    "FRAME": lambda m, a: None,
    "MARK": _Machine.mark,
    "POP": lambda m, a: m.stack.pop() if m.stack else m.pop_mark(),
    "POP_MARK": lambda m, a: m.pop_mark(),
    "DUP": lambda m, a: m.stack.append(m.stack[-1]),
    "LIST": lambda m, a: _push(m, m.pop_mark()),
    "TUPLE": lambda m, a: _push(m, tuple(m.pop_mark())),
    "TUPLE1": lambda m, a: m.fold(1),
    "TUPLE2": lambda m, a: m.fold(2),
    "TUPLE3": lambda m, a: m.fold(3),
    "DICT": lambda m, a: _push_dict(m, m.pop_mark()),
    "FROZENSET": lambda m, a: _push(m, m.pop_mark()),
    "APPEND": lambda m, a: m.extend([m.stack.pop()]),
    "APPENDS": lambda m, a: m.extend(m.pop_mark()),
    "ADDITEMS": lambda m, a: m.extend(m.pop_mark()),
    "SETITEM": lambda m, a: m.update([m.stack.pop(), m.stack.pop()][::-1]),
    "SETITEMS": lambda m, a: m.update(m.pop_mark()),
    "GET": lambda m, a: m.stack.append(m.memo[a]),
    "BINGET": lambda m, a: m.stack.append(m.memo[a]),
    "LONG_BINGET": lambda m, a: m.stack.append(m.memo[a]),
    "PUT": _Machine.remember,
    "BINPUT": _Machine.remember,
    "LONG_BINPUT": _Machine.remember,
    "MEMOIZE": lambda m, a: m.remember(None),
    "GLOBAL": lambda m, a: m.name(*a.split(" ", 1)),
    "STACK_GLOBAL": lambda m, a: m.name(*[m.stack.pop(), m.stack.pop()][::-1]),
    "REDUCE": lambda m, a: m.reduce(m.stack.pop(), m.stack.pop()),
    "NEWOBJ": lambda m, a: m.reduce(m.stack.pop(), m.stack.pop()),
    "NEWOBJ_EX": _new_with_keywords,
    "OBJ": _instance,
    "INST": _old_instance,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.storage,
    "EXT1": _extension,
    "EXT2": _extension,
    "EXT4": _extension,
}


def _push(machine: _Machine, value: Any) -> None:
    machine.stack.append(value)


def _push_dict(machine: _Machine, items: list[Any]) -> None:
    machine.stack.append({})
    machine.update(items)
