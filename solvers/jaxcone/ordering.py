"""An order between computations that have none by their data."""

import jax
import jax.numpy as jnp
from jaxtyping import PyTree


def after(tree: PyTree, earlier: PyTree) -> PyTree:
    """`tree`, with a data dependence on `earlier` that no compiler removes.

    On CPU (seen with jax 0.10.2) a batched factorisation waits, on a thread of the pool that runs
    the program, for work queued in that pool. Two of them that do not depend on each other may
    start at once and, with two threads, wait for ever. So all factorisations of a program stand in
    one line. A NaN in `earlier` spreads.
    """
    ends = [jnp.ravel(leaf)[0] for leaf in jax.tree.leaves(earlier) if jnp.size(leaf)]
    if not ends:
        return tree
    token = 0 * jnp.sum(jnp.stack(ends))
    return jax.tree.map(lambda leaf: leaf + token.astype(jnp.result_type(leaf)), tree)
