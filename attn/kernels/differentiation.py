"""Both modes of differentiation for a kernel with a backward pass of its own.

A `jax.custom_vjp` refuses forward mode. Here the tangent of a kernel is one linear operation instead. Pulled back, as in
`jax.grad`, it runs the kernel's backward pass. Pushed forward, as in `jax.jvp`, it runs a twin of the kernel: a function with
the same values that JAX differentiates.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from attn.kernels.manual_axes import match_varying
from attn.shapes import Array


class Kernel(NamedTuple):
    """A function of a pytree of arrays, and its derivatives. `static` is hashable, such as the size of a tile."""

    forward: Callable[[Any, Any], tuple[Any, Any]]  # (static, inputs) -> outputs, residuals
    backward: Callable[[Any, Any, Any, Any], Any]  # (static, inputs, residuals, cotangents) -> cotangents of the inputs
    twin: Callable[[Any, Any], Any]  # (static, inputs) -> outputs


def apply(kernel: Kernel, static: Any, inputs: Any) -> Any:
    """The outputs of the kernel, differentiable in both modes, any number of times."""

    @jax.custom_jvp
    def run(inputs: Any) -> Any:
        return kernel.forward(static, inputs)[0]

    def push(primals: tuple[Any], tangents: tuple[Any]) -> tuple[Any, Any]:
        leaves, tree = jax.tree.flatten(primals[0])
        pushed = tree.flatten_up_to(tangents[0])
        outputs, residuals = _whole(functools.partial(kernel.forward, static), primals[0])
        varied = tuple(i for i, tangent in enumerate(pushed) if _has_tangent(leaves[i], tangent))
        if not varied:
            return outputs, match_varying(jax.tree.map(jnp.zeros_like, outputs), outputs)
        saved, saved_tree = jax.tree.flatten(residuals)
        found, outputs_tree = jax.tree.flatten(outputs)
        types = tuple(jax.typeof(output).to_tangent_aval() for output in found)
        call = _Tangent(kernel, static, tree, saved_tree, outputs_tree, types, varied)
        return outputs, outputs_tree.unflatten(_tangent_p.bind(*(pushed[i] for i in varied), *leaves, *saved, call=call))

    run.defjvp(push, symbolic_zeros=True)
    return run(inputs)


def _whole(function: Callable[[Any], Any], inputs: Any) -> Any:
    """function(inputs). In a derivative rule, JAX splits each loop in two, even if one half is empty; not inside of a rule."""
    whole = jax.custom_jvp(function)
    whole.defjvp(functools.partial(jax.jvp, function))
    return whole(inputs)


def _has_tangent(leaf: Array, tangent: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.inexact) and not isinstance(tangent, SymbolicZero)


class _Batch(NamedTuple):
    """One `jax.vmap` around a tangent: its size, and for each operand whether it has the axis, as its first one."""

    size: int
    has_axis: tuple[bool, ...]


class _Tangent(NamedTuple):
    """What a tangent is of. Its operands are the tangents of the inputs `varied`, all inputs, and the residuals."""

    kernel: Kernel
    static: Any
    inputs: Any  # the structures of the inputs, the residuals and the outputs
    residuals: Any
    outputs: Any
    types: tuple[Any, ...]  # of the outputs, without the `jax.vmap`s
    varied: tuple[int, ...]
    batches: tuple[_Batch, ...] = ()  # the innermost first

    def split(self, operands: Sequence[Any]) -> tuple[list[Any], list[Any], list[Any]]:
        first, second = len(self.varied), len(self.varied) + self.inputs.num_leaves
        return list(operands[:first]), list(operands[first:second]), list(operands[second:])

    def batched(self, function: Callable[..., Any], leading: int = 0) -> Callable[..., Any]:
        """`function` of the operands under the `jax.vmap`s; `leading` arrays that all have the axes replace the tangents."""
        for batch in self.batches:
            rest = batch.has_axis[len(self.varied) :] if leading else batch.has_axis
            axes = (0,) * leading + tuple(0 if has_axis else None for has_axis in rest)
            function = jax.vmap(function, in_axes=axes, axis_size=batch.size)
        return function

    def push(self, *operands: Array) -> list[Array]:
        def one(*operands: Array) -> list[Array]:
            tangents, leaves, _ = self.split(operands)

            def twin(*varied: Array) -> list[Array]:
                values = dict(enumerate(leaves)) | dict(zip(self.varied, varied, strict=True))
                return jax.tree.leaves(self.kernel.twin(self.static, self.inputs.unflatten(values.values())))

            return jax.jvp(twin, tuple(leaves[i] for i in self.varied), tuple(tangents))[1]

        return self.batched(one)(*operands)

    def pull(self, cotangents: Sequence[Array], operands: Sequence[Array]) -> list[Array]:
        """The cotangents of the tangents. `operands` are without these."""
        count = len(cotangents)

        def one(*arrays: Array) -> list[Array]:
            _, leaves, saved = self.split([*self.varied, *arrays[count:]])
            trees = self.inputs.unflatten(leaves), self.residuals.unflatten(saved), self.outputs.unflatten(arrays[:count])
            found = self.inputs.flatten_up_to(self.kernel.backward(self.static, *trees))
            return [found[i] for i in self.varied]

        return self.batched(one, count)(*cotangents, *operands)

    def output_types(self) -> list[Any]:
        sizes = tuple(batch.size for batch in reversed(self.batches))
        return [type_.update(shape=sizes + type_.shape) if sizes else type_ for type_ in self.types]


_tangent_p = Primitive("attn_tangent")
_tangent_p.multiple_results = True


@_tangent_p.def_impl
def _(*operands: Array, call: _Tangent) -> list[Array]:
    return call.push(*operands)


@_tangent_p.def_abstract_eval
def _(*operands: Any, call: _Tangent) -> list[Any]:
    del operands
    return call.output_types()


def _lower(*operands: Array, call: _Tangent) -> list[Array]:
    return call.push(*operands)


def _transpose(cotangents: Sequence[Any], *operands: Any, call: _Tangent) -> list[Any]:
    count = len(call.varied)
    found = call.pull([ad.instantiate_zeros(cotangent) for cotangent in cotangents], operands[count:])
    undefined = [ad.is_undefined_primal(operand) for operand in operands[:count]]
    return [x if unknown else None for x, unknown in zip(found, undefined, strict=True)] + [None] * (len(operands) - count)


def _jvp(primals: Sequence[Any], tangents: Sequence[Any], *, call: _Tangent) -> tuple[list[Any], list[Any]]:
    """Linear in the tangents of the inputs; by the inputs it is the derivative of the twin's."""
    count, second = len(call.varied), len(call.varied) + call.inputs.num_leaves
    known = [not isinstance(tangent, ad.Zero) and tangent.dtype != jax.dtypes.float0 for tangent in tangents]
    outputs, parts = _tangent_p.bind(*primals, call=call), []
    if any(known[:count]):
        pushed = [ad.instantiate_zeros(tangent) for tangent in tangents[:count]]
        parts.append(_tangent_p.bind(*pushed, *primals[count:], call=call))
    if any(known[count:second]):
        chosen = [i for i in range(count, second) if known[i]]

        def push(*inputs: Array) -> list[Array]:
            return call.push(*(dict(enumerate(primals)) | dict(zip(chosen, inputs, strict=True))).values())

        parts.append(jax.jvp(push, tuple(primals[i] for i in chosen), tuple(tangents[i] for i in chosen))[1])
    if not parts:
        return outputs, [ad.Zero(jax.typeof(output).to_tangent_aval()) for output in outputs]
    return outputs, [functools.reduce(jnp.add, part) for part in zip(*parts, strict=True)]


def _batch(operands: Sequence[Any], axes: Sequence[Any], *, call: _Tangent) -> tuple[list[Any], list[int]]:
    """Every tangent gets the axis, so that the pulled cotangent of each is the sum over it where the tangent had none."""
    size = next(x.shape[axis] for x, axis in zip(operands, axes, strict=True) if axis is not None)
    has_axis = tuple(i < len(call.varied) or axis is not None for i, axis in enumerate(axes))
    moved = [
        x if not has else jnp.moveaxis(x, axis, 0) if axis is not None else jnp.broadcast_to(x, (size, *x.shape))
        for x, axis, has in zip(operands, axes, has_axis, strict=True)
    ]
    outputs = _tangent_p.bind(*moved, call=call._replace(batches=(*call.batches, _Batch(size, has_axis))))
    return outputs, [0] * len(outputs)


ad.primitive_transposes[_tangent_p] = _transpose
ad.primitive_jvps[_tangent_p] = _jvp
batching.primitive_batchers[_tangent_p] = _batch
mlir.register_lowering(_tangent_p, mlir.lower_fun(_lower, multiple_results=True))
