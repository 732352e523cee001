"""The reader of ONNX files, on some written here field by field, and on those of ONNX itself."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from speakup.models.onnx_file import read_constants

Array = NDArray[np.float32]


def varint(value: int) -> bytes:
    parts = []
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def message(field: int, content: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(content)) + content


def tensor(name: str, values: Array, kind: int = 1) -> bytes:
    shape = b"".join(number(1, size) for size in values.shape)
    return shape + number(2, kind) + message(8, name.encode()) + message(9, values.tobytes())


def node(name: str, operator: str, inputs: list[str], outputs: list[str], *more: bytes) -> bytes:
    parts = [message(1, each.encode()) for each in inputs]
    parts += [message(2, each.encode()) for each in outputs]
    return b"".join([*parts, message(3, name.encode()), message(4, operator.encode()), *more])


def constant(output: str, values: Array) -> bytes:
    attribute = message(1, b"value") + message(5, tensor("", values))
    return node(f"/{output}", "Constant", [], [output], message(5, attribute))


def model(*parts: bytes) -> bytes:
    return number(1, 8) + message(2, b"a producer") + message(7, b"".join(parts))


VALUES = np.arange(6, dtype=np.float32).reshape(2, 3)
BIAS = np.float32([7.0, 8.0])


def test_a_nodes_constants_come_in_the_order_of_its_inputs() -> None:
    content = model(
        message(1, node("/first", "MatMul", ["x", "weight", "bias"], ["y"])),
        message(5, tensor("bias", BIAS)),
        message(5, tensor("weight", VALUES)),
    )
    found = read_constants(content)
    assert list(found) == ["/first"]
    assert [value.tolist() for value in found["/first"]] == [VALUES.tolist(), BIAS.tolist()]


def test_values_that_a_constant_node_gives_count_like_others() -> None:
    content = model(
        message(1, constant("scale", VALUES)),
        message(1, node("/first", "Mul", ["scale", "x"], ["y"])),
    )
    assert read_constants(content)["/first"][0].tolist() == VALUES.tolist()


def test_tensors_of_other_types_are_left_out() -> None:
    whole = message(5, tensor("shape", VALUES, kind=7))
    content = model(whole, message(1, node("/first", "Reshape", ["x", "shape"], ["y"])))
    assert read_constants(content)["/first"] == []


def test_fields_of_other_widths_are_passed_over() -> None:
    content = varint(99 << 3 | 1) + bytes(8) + varint(98 << 3 | 5) + bytes(4)
    content += model(message(1, node("/first", "Relu", ["x"], ["y"])))
    assert read_constants(content) == {"/first": []}


@pytest.mark.parametrize("content", [b"", b"no such thing", number(1, 8), bytes(range(200))])
def test_what_is_no_onnx_file_is_an_error(content: bytes) -> None:
    with pytest.raises(ValueError):
        read_constants(content)


def test_a_file_cut_anywhere_is_an_error() -> None:
    content = model(
        message(5, tensor("weight", VALUES)),
        message(1, node("/first", "MatMul", ["x", "weight"], ["y"])),
    )
    graph = content.index(b"a producer") + len(b"a producer")
    for length in range(graph + 1, len(content)):
        with pytest.raises(ValueError):
            read_constants(content[:length])


def test_a_shape_that_does_not_fit_its_bytes_is_an_error() -> None:
    short = tensor("weight", VALUES)[:-4].replace(varint(24) + VALUES.tobytes()[:4], b"")
    with pytest.raises(ValueError):
        read_constants(model(message(5, short)))


def test_it_reads_what_onnx_itself_writes() -> None:
    onnx = pytest.importorskip("onnx", reason="ONNX's own library is not installed")
    helper, from_array = onnx.helper, onnx.numpy_helper.from_array
    nodes = [
        helper.make_node("Constant", [], ["bias"], "/bias", value=from_array(BIAS, "bias")),
        helper.make_node("Gemm", ["x", "weight", "bias"], ["y"], "/gemm", transB=1),
    ]
    kind = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "a-graph",
        [helper.make_tensor_value_info("x", kind, [1, 3])],
        [helper.make_tensor_value_info("y", kind, [1, 2])],
        [from_array(VALUES, "weight")],
    )
    found = read_constants(helper.make_model(graph).SerializeToString())
    assert [value.tolist() for value in found["/gemm"]] == [VALUES.tolist(), BIAS.tolist()]
