"""Writing an ONNX graph node by node.

A `Graph` collects nodes and constants; operations are called like functions and give the names of
their results. Knows the format, nothing of language models.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

MICROSOFT = "com.microsoft"
"""The domain of onnxruntime's own operations."""

_OPSET, _MICROSOFT_OPSET, _IR_VERSION = 17, 1, 8
"""Old enough for every onnxruntime this package runs with."""


class Graph:
    """A graph in the making. Tensors are named by strings."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._nodes: list[onnx.NodeProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], onnx.TensorProto] = {}

    def input(self, name: str, kind: type[np.generic], shape: tuple[int | str, ...]) -> str:
        """Declare an input; a dimension is a size, or a name where it differs by call."""
        self._inputs.append(_value_info(name, kind, shape))
        return name

    def output(self, tensor: str, name: str, kind: type[np.generic], shape: tuple[int | str, ...]) -> str:
        """Give the result of the operation called last out under a name, which is its name from here on."""
        self._nodes[-1].output[list(self._nodes[-1].output).index(tensor)] = name
        self._outputs.append(_value_info(name, kind, shape))
        return name

    def constant(self, value: NDArray[Any]) -> str:
        """A constant tensor; equal ones are stored once."""
        array = np.ascontiguousarray(value).reshape(value.shape)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = numpy_helper.from_array(array, f"constant_{len(self._constants)}")
        return self._constants[key].name

    def number(self, value: float) -> str:
        """A constant scalar."""
        return self.constant(np.array(value, dtype=np.float32))

    def integers(self, *values: int) -> str:
        """A constant vector of 64-bit integers, such as a shape."""
        return self.constant(np.array(values, dtype=np.int64))

    def call(self, operation: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Apply an operation that has one result."""
        return self.call_many(1, operation, *inputs, domain=domain, **attributes)[0]

    def call_many(
        self, results: int, operation: str, *inputs: str, domain: str = "", **attributes: Any
    ) -> tuple[str, ...]:
        """Apply an operation that has several results."""
        names = tuple(f"{operation}_{len(self._nodes)}_{index}" for index in range(results))
        self._nodes.append(helper.make_node(operation, inputs, names, domain=domain, **attributes))
        return names

    def model(self, name: str) -> onnx.ModelProto:
        """The finished model."""
        graph = helper.make_graph(self._nodes, name, self._inputs, self._outputs, list(self._constants.values()))
        opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(MICROSOFT, _MICROSOFT_OPSET)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="secondpass")


def _value_info(name: str, kind: type[np.generic], shape: tuple[int | str, ...]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(kind)), shape)
