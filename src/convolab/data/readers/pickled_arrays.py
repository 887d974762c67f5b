"""Pickles that hold arrays and lists, read as data: nothing that a file names is imported or called.

Python's own unpickler cannot be held to that: a few hundred bytes make it hash for years or ask for gigabytes. Here an
opcode makes one small object or refers to bytes of the file, arrays are made of those bytes alone, and all that may
stand in such a file is listed below. The opcodes are those of Python's `pickletools`.
"""

import math
import re
from pathlib import Path

import numpy as np

from convolab.core.errors import LabError, require
from convolab.core.escape import escape_line
from convolab.core.files import size_of_file
from convolab.core.text import format_bytes

MAX_FILE_BYTES = 200_000_000  # CIFAR-100's largest file has 156 million
MAX_OPCODES = 500_000  # CIFAR-100's largest file has some 200,000
MAX_COPIED_BYTES = 4096  # longer strings stay where they are in the file
MAX_DIMENSIONS = 8
SIMPLE_DTYPE = re.compile(r"[|<>=]?[biuf][1248]")

CONSTANTS = {ord("N"): None, 0x88: True, 0x89: False}
EMPTY_VALUES: dict[int, type] = {ord("}"): dict, ord("]"): list, ord(")"): tuple}
SHORT_TUPLES = {0x85: 1, 0x86: 2, 0x87: 3}
# These are followed by a number, of so many bytes: an integer; the length of a string; a place in the memo.
INTEGERS = {ord("K"): 1, ord("M"): 2, ord("J"): 4}
BYTE_STRINGS = {ord("U"): 1, ord("T"): 4, ord("C"): 1, ord("B"): 4, 0x8E: 8}
TEXTS = {0x8C: 1, ord("X"): 4, 0x8D: 8}
PUTS = {ord("q"): 1, ord("r"): 4}
GETS = {ord("h"): 1, ord("j"): 4}
NUMBER_BYTES = {**INTEGERS, **BYTE_STRINGS, **TEXTS, **PUTS, **GETS}

ARRAY_MAKERS = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
DTYPE, ENCODE = "numpy.dtype", "_codecs.encode"
KNOWN_GLOBALS = (*ARRAY_MAKERS, DTYPE, ENCODE, "numpy.ndarray")


class Global(str):
    """The full name of something that a pickle would have imported."""


class Dtype(str):
    """The type of an array's values, as NumPy names it."""


class PickledArray:
    """An array that is being read; its values come last."""

    values: np.ndarray | None = None


def read_pickle(path: Path) -> object:
    """What a pickle of dictionaries, lists, tuples, strings, integers and arrays holds; arrays are read-only.

    Byte strings are bytes, long ones a memoryview; the name of anything but an array's parts is refused.

    Raises LabError, beginning with the path, if the file holds anything else, is damaged, or is too large.
    """
    size = size_of_file(path)
    require(size <= MAX_FILE_BYTES, f"{path} is {format_bytes(size)}, more than {format_bytes(MAX_FILE_BYTES)}")
    try:
        return PickleReader(path.read_bytes(), path).read()
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        raise LabError(f"{path} is damaged ({type(error).__name__}: {escape_line(str(error), 100)})") from error


class PickleReader:
    """Reads one pickle. Any error but a LabError means that it is damaged."""

    def __init__(self, content: bytes, path: Path) -> None:
        self.content = content
        self.path = path
        self.position = 0
        self.stack: list[object] = []
        self.marks: list[int] = []  # lengths of the stack
        self.memo: dict[int, object] = {}
        self.bytes_left = len(content)  # that may still be converted: a text can be referred to again and again

    def read(self) -> object:
        content, stack, memo = self.content, self.stack, self.memo
        for _ in range(MAX_OPCODES):
            opcode = content[self.position]
            start = self.position + 1
            self.position = start + NUMBER_BYTES.get(opcode, 0)
            number = int.from_bytes(content[start : self.position], "little", signed=opcode == ord("J"))
            if opcode in INTEGERS:
                stack.append(number)
            elif opcode in PUTS:
                memo[number] = stack[-1]
            elif opcode in BYTE_STRINGS:
                taken = self._take(number)
                stack.append(taken if number > MAX_COPIED_BYTES else bytes(taken))
            elif opcode in TEXTS:
                stack.append(str(self._take(number), "utf-8", "surrogatepass"))
            elif opcode in GETS:
                stack.append(memo[number])
            elif opcode in CONSTANTS:
                stack.append(CONSTANTS[opcode])
            elif opcode in EMPTY_VALUES:
                stack.append(EMPTY_VALUES[opcode]())
            elif opcode in SHORT_TUPLES:
                stack.append(tuple(stack.pop() for _ in range(SHORT_TUPLES[opcode]))[::-1])
            elif opcode == ord("."):
                value = stack.pop()
                return value.values if isinstance(value, PickledArray) else value
            else:
                self._execute_rare(chr(opcode))
        raise LabError(f"{self.path} has more than {MAX_OPCODES:,} entries: it is not a CIFAR file")

    def _execute_rare(self, opcode: str) -> None:
        stack = self.stack
        match opcode:
            case "(":
                self.marks.append(len(stack))
            case "t":
                stack.append(tuple(self._pop_marked()))
            case "l":
                stack.append(self._pop_marked())
            case "d" | "u":
                items = self._pop_marked()
                if opcode == "d":
                    stack.append({})
                self._set_items(items)
            case "s":
                self._set_items([stack.pop(-2), stack.pop()])
            case "e" | "a":
                items = self._pop_marked() if opcode == "e" else [stack.pop()]
                target = stack[-1]
                if not isinstance(target, list):
                    raise TypeError("something is added to what is not a list")
                target.extend(items)
            case "I" | "L":
                line = self._line(20)
                stack.append(line == "01" if line in ("00", "01") else int(line.removesuffix("L")))
            case "\x8a":
                stack.append(int.from_bytes(self._take(min(self._take(1)[0], 8)), "little", signed=True))
            case "S":
                stack.append(
                    self._line(MAX_FILE_BYTES)[1:-1].encode("latin1").decode("unicode-escape").encode("latin1")
                )
            case "V":
                stack.append(self._line(MAX_COPIED_BYTES).encode("latin1").decode("raw-unicode-escape"))
            case "p":
                self.memo[int(self._line(20))] = stack[-1]
            case "g":
                stack.append(self.memo[int(self._line(20))])
            case "\x94":
                self.memo[len(self.memo)] = stack[-1]
            case "c":
                stack.append(self._global(self._line(MAX_COPIED_BYTES), self._line(MAX_COPIED_BYTES)))
            case "\x93":
                stack.append(self._global(str(stack.pop(-2)), str(stack.pop())))
            case "R":
                arguments = stack.pop()
                stack.append(self._call(stack.pop(), arguments))
            case "b":
                self._set_state(stack.pop())
            case "\x80" | "\x95":  # the protocol, and how long the next part of the file is
                self._take(1 if opcode == "\x80" else 8)
            case _:
                raise ValueError(f"it has the opcode {ord(opcode):#04x}")

    def _take(self, count: int) -> memoryview:
        end = self.position + count
        if end > len(self.content):
            raise ValueError("it ends too early")
        taken = memoryview(self.content)[self.position : end]
        self.position = end
        return taken

    def _line(self, max_bytes: int) -> str:
        """The text up to the end of a line."""
        end = self.content.index(b"\n", self.position, self.position + max_bytes + 1)
        return str(self._take(end + 1 - self.position)[:-1], "latin1")

    def _pop_marked(self) -> list[object]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def _set_items(self, items: list[object]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise TypeError("something is added to what is not a dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str | bytes):  # of a nested tuple the hash may take for ever
                raise TypeError("a key of a dictionary is not text")
            target[key] = value.values if isinstance(value, PickledArray) else value

    def _global(self, module: str, name: str) -> Global:
        full_name = f"{module}.{name}"
        require(
            full_name in KNOWN_GLOBALS, f"{self.path} tries to load {escape_line(full_name, 100)}: not a CIFAR file"
        )
        return Global(full_name)

    def _call(self, function: object, arguments: object) -> object:
        """What a function would give: the parts of an array, or bytes that Python 3 wrote for Python 2."""
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            raise TypeError("something is called that is not a function")
        if function in ARRAY_MAKERS:
            return PickledArray()
        if function == DTYPE:
            return Dtype(to_text(arguments[0]))
        if function == ENCODE and len(arguments) == 2 and arguments[1] in ("latin1", b"latin1"):
            text = to_text(arguments[0])
            self.bytes_left -= len(text)
            if self.bytes_left < 0:
                raise ValueError("it converts the same text again and again")
            return text.encode("latin1")
        raise ValueError(f"{function} is called with {len(arguments)} arguments")

    def _set_state(self, state: object) -> None:
        """Give an array its values: (version, shape, type, whether columns come first, bytes)."""
        target = self.stack[-1]
        if isinstance(target, Dtype):  # the order of bytes and the like: nothing that bytes have
            return
        if not isinstance(target, PickledArray) or not isinstance(state, tuple) or len(state) != 5:
            raise TypeError("it sets the state of what is not an array")
        _, shape, dtype, is_fortran, values = state
        if not isinstance(dtype, Dtype) or not SIMPLE_DTYPE.fullmatch(dtype):
            raise ValueError("an array has values of an unknown type")
        if not isinstance(values, bytes | memoryview) or not isinstance(shape, tuple) or len(shape) > MAX_DIMENSIONS:
            raise TypeError("an array has no bytes or no shape")
        if not all(type(side) is int and side >= 0 for side in shape):
            raise ValueError("an array has a shape that is none")
        array = np.frombuffer(values, str(dtype))
        if math.prod(shape) != array.size:
            raise ValueError(f"an array has {array.size} values, not those of its shape")
        target.values = array.reshape(shape, order="F" if is_fortran else "C")


def to_text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("latin1")
    if isinstance(value, str):
        return value
    raise TypeError("something is not text")
