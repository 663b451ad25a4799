"""A pickle read as data. Nothing in it is called: classes become names, calls become records.

The standard way to restrict pickle is to filter which classes its virtual machine may call. Here the machine
calls nothing at all: opcodes are decoded by the standard library's disassembler (`pickletools.genops`, which
only parses) and run on a stack where REDUCE and BUILD build an inert `Record`. Names outside the allow-list
are refused anyway, because a model file that asks for anything else is not what it claims to be. Arrays are
then read from the records of numpy, scipy and chumpy with their sizes checked against the bytes that are
there.
"""

from __future__ import annotations

import io
import pickletools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

ALLOWED = frozenset({
    "numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct", "numpy.ndarray",
    "numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer", "numpy.dtype",
    "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "copy_reg._reconstructor",
    "copyreg._reconstructor", "__builtin__.object", "builtins.object", "_codecs.encode",
    "scipy.sparse.csc.csc_matrix", "scipy.sparse._csc.csc_matrix", "scipy.sparse.csr.csr_matrix",
    "scipy.sparse._csr.csr_matrix", "chumpy.ch.Ch", "chumpy.reordering.Select", "collections.OrderedDict",
    "torch._utils._rebuild_tensor_v2", "torch.storage._load_from_bytes", "torch.FloatStorage",
    "torch.DoubleStorage", "torch.LongStorage", "torch.IntStorage",
})  # fmt: skip


class UnsafePickle(Exception):
    """The pickle is damaged or asks for something no model needs; the loader turns it into a
    `ModelFileError`.
    """


@dataclass(eq=False)
class Record:
    """What a pickle would have built: the name it would have called, with which arguments and state."""

    name: str
    arguments: tuple[Any, ...] = ()
    state: Any = None


@dataclass(frozen=True)
class Name:
    text: str


def parse(data: bytes) -> Any:
    """The value of the first pickle in `data`; strings of Python 2 come as Latin-1 text."""
    return parse_next(io.BytesIO(data))


def parse_next(stream: io.BytesIO) -> Any:
    """The value of the pickle that starts here; the stream then stands behind it."""
    machine = _Machine()
    try:
        with warnings.catch_warnings():
            # The disassembler's own complaint about an odd escape in a damaged name.
            warnings.simplefilter("ignore", DeprecationWarning)
            for opcode, argument, _ in pickletools.genops(stream):
                if opcode.name == "STOP":
                    return machine.stack.pop()
                machine.step(opcode.name, argument)
    except UnsafePickle:
        raise
    # The disassembler raises ValueError for everything malformed; the rest come from an inconsistent stack.
    except (
        ValueError,
        IndexError,
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        raise UnsafePickle(f"damaged pickle ({type(error).__name__}: {error})") from error
    raise UnsafePickle("the pickle has no end")


class _Machine:
    """Stack and memo of a pickle; an item of the stack that is `_MARK` begins a group."""

    _MARK = object()
    _IGNORED = frozenset(("PROTO", "FRAME"))
    _LITERALS = frozenset((
        "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING",
        "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "UNICODE",
        "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    ))  # fmt: skip
    _CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
    _EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_DICT": dict}

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        if name in self._LITERALS:
            self.stack.append(argument)
        elif name in self._CONSTANTS:
            self.stack.append(self._CONSTANTS[name])
        elif name in self._EMPTY:
            self.stack.append(self._EMPTY[name]())
        elif name == "MARK":
            self.stack.append(self._MARK)
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[int(argument)] = self.stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self.stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[int(argument)])
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            self.stack.append(self._name(argument))
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, called = self.stack.pop(), self.stack.pop()
            self.stack.append(self._call(called, arguments))
        elif name not in self._IGNORED:
            self._collect(name)

    def _collect(self, name: str) -> None:
        """Opcodes that put items together."""
        if name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            if len(self.stack) < count:
                raise UnsafePickle("damaged pickle (stack underflow)")
            self.stack[-count:] = [tuple(self.stack[-count:])]
        elif name == "TUPLE":
            self.stack.append(tuple(self._group()))
        elif name == "LIST":
            self.stack.append(self._group())
        elif name == "DICT":
            self.stack.append(self._fill({}, self._group()))
        elif name == "APPEND":
            item = self.stack.pop()
            self.stack[-1].append(item)
        elif name == "APPENDS":
            items = self._group()
            self.stack[-1].extend(items)
        elif name == "SETITEM":
            value, key = self.stack.pop(), self.stack.pop()
            self._fill(self.stack[-1], [key, value])
        elif name == "SETITEMS":
            items = self._group()
            self._fill(self.stack[-1], items)
        elif name == "BUILD":
            state = self.stack.pop()
            if not isinstance(self.stack[-1], Record):
                raise UnsafePickle("damaged pickle (state for something that has none)")
            self.stack[-1].state = state
        elif name == "BINPERSID":
            self.stack.append(Record("persistent", (self.stack.pop(),)))
        elif name == "POP":
            self.stack.pop()
        elif name == "DUP":
            self.stack.append(self.stack[-1])
        else:
            raise UnsafePickle(f"it uses {name}, which no model file needs")

    def _group(self) -> list[Any]:
        at = len(self.stack) - 1
        while self.stack[at] is not self._MARK:
            at -= 1
            if at < 0:
                raise UnsafePickle("damaged pickle (no mark)")
        items = self.stack[at + 1 :]
        del self.stack[at:]
        return items

    def _name(self, argument: Any) -> Name:
        if argument is None:
            attribute, module = self.stack.pop(), self.stack.pop()
            text = f"{module}.{attribute}"
        else:
            text = str(argument).replace(" ", ".")
        if text not in ALLOWED:
            raise UnsafePickle(f"it asks for {text!r}, which no model file needs; refused, nothing was run")
        return Name(text)

    @staticmethod
    def _call(called: Any, arguments: Any) -> Any:
        if not isinstance(called, Name) or not isinstance(arguments, tuple):
            raise UnsafePickle("damaged pickle (a call of something that is no name)")
        if called.text.endswith("_reconstructor") and arguments and isinstance(arguments[0], Name):
            return Record(arguments[0].text)
        if called.text == "_codecs.encode" and len(arguments) == 2 and isinstance(arguments[0], str):
            # How Python 3 writes bytes in old protocols: Latin-1 text, encoded back.
            return arguments[0].encode("latin-1")
        if called.text == "collections.OrderedDict":
            return {}
        return Record(called.text, arguments)

    @staticmethod
    def _fill(target: Any, items: list[Any]) -> dict[Any, Any]:
        """Only text and numbers are keys: hashing a deeply nested tuple would overflow the C stack."""
        if not isinstance(target, dict) or len(items) % 2:
            raise UnsafePickle("damaged pickle (items for something that is no dictionary)")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str | int | bytes):
                raise UnsafePickle(f"a dictionary has a key of type {type(key).__name__}")
            target[key] = value
        return target
