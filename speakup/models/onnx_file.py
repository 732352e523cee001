"""The constants of an ONNX file, by the node that uses them, read without ONNX's own library.

Only what holds weights is read: float32 tensors inside the file. What computes with them is in
our own networks.

Reference: the Protocol Buffers wire format, and the field numbers of onnx.proto3 (IR version 10).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Constant = NDArray[np.float32]

_GRAPH = 7  # of ModelProto
_NODE, _INITIALIZER = 1, 5  # of GraphProto
_INPUT, _OUTPUT, _NAME, _OPERATOR, _ATTRIBUTE = 1, 2, 3, 4, 5  # of NodeProto
_TENSOR = 5  # of AttributeProto
_DIMENSIONS, _TYPE, _TENSOR_NAME, _BYTES = 1, 2, 8, 9  # of TensorProto
_FLOAT32 = 1
_VARINT, _FIXED64, _COUNTED, _FIXED32 = 0, 1, 2, 5
_WIDTHS = {_FIXED64: 8, _FIXED32: 4}


def read_constants(content: bytes) -> dict[str, list[Constant]]:
    """Give the float32 constants among each named node's inputs, in their order.

    Args:
        content: A whole ONNX file.

    Raises:
        ValueError: it is none, or is cut or damaged.
    """
    nodes: list[tuple[str, list[str]]] = []
    known: dict[str, Constant] = {}
    for graph in _messages(memoryview(content), _GRAPH):
        for number, value in _fields(graph):
            if number == _INITIALIZER:
                name, tensor = _tensor(_message(value))
                if tensor is not None:
                    known[name] = tensor
            elif number == _NODE:
                node = _message(value)
                inputs, outputs = ([*_texts(node, which)] for which in (_INPUT, _OUTPUT))
                nodes.append(("".join(_texts(node, _NAME)), inputs))
                if "Constant" in _texts(node, _OPERATOR):
                    known |= zip(outputs, _attributes(node), strict=False)
    if not nodes:
        raise ValueError("is no ONNX file")
    return {name: [known[each] for each in inputs if each in known] for name, inputs in nodes}


def _attributes(node: memoryview) -> Iterator[Constant]:
    for attribute in _messages(node, _ATTRIBUTE):
        for message in _messages(attribute, _TENSOR):
            _, tensor = _tensor(message)
            if tensor is not None:
                yield tensor


def _tensor(message: memoryview) -> tuple[str, Constant | None]:
    """Read a tensor and its name; one of another type than float32 is None."""
    shape: list[int] = []
    name, kind, content = "", 0, memoryview(b"")
    for number, value in _fields(message):
        if number == _DIMENSIONS:
            shape += [value] if isinstance(value, int) else _varints(value)
        elif number == _TYPE and isinstance(value, int):
            kind = value
        elif number == _TENSOR_NAME:
            name = str(_message(value), "utf-8")
        elif number == _BYTES:
            content = _message(value)
    if kind != _FLOAT32:
        return name, None
    if 4 * math.prod(shape) != len(content):
        raise ValueError(f"the tensor {name!r} has {len(content)} bytes for the shape {shape}")
    return name, np.frombuffer(content, "<f4").reshape(shape)


def _messages(message: memoryview, wanted: int) -> Iterator[memoryview]:
    return (_message(value) for number, value in _fields(message) if number == wanted)


def _texts(message: memoryview, wanted: int) -> Iterator[str]:
    return (str(part, "utf-8") for part in _messages(message, wanted))


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number stands where a message should")
    return value


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield the fields of a message: numbers of varints, and the bytes of all others."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        if wire == _COUNTED:
            length, at = _varint(message, at)
        elif wire in _WIDTHS:
            length = _WIDTHS[wire]
        else:
            raise ValueError(f"a field has the wire type {wire}")
        if at + length > len(message):
            raise ValueError("it is cut off")
        yield number, message[at : at + length]
        at += length


def _varints(message: memoryview) -> list[int]:
    values, at = [], 0
    while at < len(message):
        value, at = _varint(message, at)
        values.append(value)
    return values


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """Read a number of seven bits a byte, the lowest first, and give the place after it."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise ValueError("it is cut off")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number has more than 64 bits")
