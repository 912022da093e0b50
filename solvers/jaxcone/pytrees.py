"""Arithmetic on pytrees of arrays, products in full precision, and the order of factorisations."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree


def after(tree: PyTree, earlier: PyTree) -> PyTree:
    """`tree`, with a data dependence on `earlier` that no compiler removes.

    On CPU (seen with jax 0.10.2) a batched factorisation waits, on a thread of the pool that runs
    the program, for work queued in that pool. Two of them that do not depend on each other may
    start at once and, with two threads, wait for ever. So all factorisations of a program stand in
    one line. A NaN in `earlier` spreads.
    """
    arrays = [leaf for leaf in jax.tree.leaves(earlier) if eqx.is_inexact_array(leaf)]
    ends = [jnp.ravel(leaf)[0] for leaf in arrays if leaf.size]
    if not ends:
        return tree
    token = 0 * jnp.sum(jnp.stack(ends))

    def follow(leaf):
        return leaf + token.astype(leaf.dtype) if eqx.is_inexact_array(leaf) else leaf

    return jax.tree.map(follow, tree)


def inner(left: PyTree, right: PyTree) -> Float[Array, ""]:
    """Inner product of two pytrees of arrays: the sum of all products of their entries."""
    products = jax.tree.map(lambda a, b: jnp.sum(a * b), left, right)
    return jax.tree.reduce(jnp.add, products)


def norm(tree: PyTree) -> Float[Array, ""]:
    """Euclidean norm that belongs to `inner`."""
    return jnp.sqrt(inner(tree, tree))


def largest(tree: PyTree) -> Float[Array, ""]:
    """The largest absolute value among all entries; 0 if there are none."""
    leaves = [jnp.max(jnp.abs(leaf), initial=0) for leaf in jax.tree.leaves(tree)]
    return functools.reduce(jnp.maximum, leaves)


def combine(weight_left, left: PyTree, weight_right, right: PyTree) -> PyTree:
    """weight_left * left + weight_right * right."""
    return jax.tree.map(lambda a, b: weight_left * a + weight_right * b, left, right)


def subtract(left: PyTree, right: PyTree) -> PyTree:
    """left - right."""
    return jax.tree.map(jnp.subtract, left, right)


def matmul(left: Array, right: Array) -> Array:
    """Matrix product at full precision: GPUs would round float32 to fewer bits."""
    return jnp.matmul(left, right, precision=jax.lax.Precision.HIGHEST)
