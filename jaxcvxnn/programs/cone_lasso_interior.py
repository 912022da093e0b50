"""(cone-lasso) in coordinates, for interior-point methods: the normal matrix block by block."""

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcone import (
    AbstractInteriorForm,
    ConeProgram,
    EntryScaling,
    Layout,
    Nonnegative,
    ProductCone,
    Scaling,
    SecondOrder,
    Zero,
)

from ..products import dot

if TYPE_CHECKING:
    from .cone_lasso_conic import ConeLassoProgram, ConeLassoScaling, Points


class ConeLassoForm(AbstractInteriorForm):
    """(cone-lasso), equilibrated, in coordinates: x the blocks (r, w), s = (E x, margins, misfits)."""

    program: "ConeLassoProgram"
    scaling: "ConeLassoScaling"
    layout: Layout

    def __init__(self, program: "ConeLassoProgram", scaling: "ConeLassoScaling"):
        self.program, self.scaling = program, scaling
        blocks = self.size // program.norm_rows.shape[1]
        size = len(program.norm_rows)
        norms = [SecondOrder(size)] * blocks if program.norm == 2 else [Nonnegative(size * blocks)]
        margins = Nonnegative(blocks * program.targets.shape[1])
        fit = [Zero(program.targets.size)] if program.interpolate else []
        self.layout = Layout(ProductCone([*norms, margins, *fit]))

    def linear(self):
        return self.program.linear().ravel()

    def offset(self):
        return _joined(self.program.offset())

    def quadratic(self, x):
        return self.program.quadratic(self._blocks(x)).ravel()

    def operator(self, x):
        return _joined(self.program.operator(self._blocks(x)))

    def adjoint(self, y):
        return self.program.adjoint(self._parts(y)).ravel()

    def normal(self, scaling):
        program, gates = self.program, self.program.gates
        length, samples = program.norm_rows.shape[1], program.targets.shape[1]
        count = self.size // length
        entries = scaling[-1]
        assert isinstance(entries, EntryScaling)
        rows = jnp.asarray(program.norm_rows, entries.w.dtype)
        if program.norm == 2:
            copies = jnp.broadcast_to(rows.T[:, None], (length, count, len(rows)))
            down = jax.vmap(scaling[0].down)(copies)
        else:
            of_norms = entries.w[: count * len(rows)].reshape(count, len(rows))
            down = rows.T[:, None] / of_norms
        own = jnp.einsum("ake,bke->kab", down, down, precision="highest")
        squares = entries.w[-count * samples :].reshape(count, samples) ** -2
        weighted = squares[:, :, None] * gates.rows
        of_margins = dot(jnp.swapaxes(weighted, 1, 2), gates.rows)
        own = own.at[:, program.bounds :, program.bounds :].add(of_margins)
        index = jnp.arange(count)
        blocks = jnp.zeros((count, length, count, length), own.dtype).at[index, :, index].set(own)
        matrix = blocks.reshape(self.size, self.size)
        if program.interpolate:
            return matrix
        rows = self._fit_rows()
        return matrix + dot(rows.T, rows)

    def equality_rows(self):
        dtype = self.program.targets.dtype
        return self._fit_rows() if self.program.interpolate else jnp.zeros((0, self.size), dtype)

    def initial(self):
        return None

    def points(self, x, s, y):
        return self.scaling.unscale(self._blocks(x), self._parts(s), self._parts(y))

    def twin(self):
        if self.program.solvable:
            return None
        maps = self.operator, self.adjoint
        flat = ConeProgram(None, self.linear(), maps, self.offset(), self.layout.cones)
        return flat, _FlatScaling(self)

    @property
    def size(self):
        gates = self.program.gates
        blocks = 2 * len(gates.slopes) * len(self.program.targets)
        return blocks * self.program.norm_rows.shape[1]

    def cost(self):
        outputs, samples = self.program.targets.shape
        length = self.program.norm_rows.shape[1]
        fits = 2.0 * samples * self.size**2 * outputs
        return self.size * (2.0 * samples + outputs * samples), fits + 2.0 * samples * length**3

    def _fit_rows(self) -> Float[Array, "cn x"]:
        """A, one row per output and sample."""
        program, gates = self.program, self.program.gates
        half = gates.slopes[:, :, None] * gates.features
        half = jnp.pad(half, ((0, 0), (0, 0), (program.bounds, 0)))
        rows = jnp.swapaxes(jnp.stack([half, -half]), 1, 2)
        rows = jnp.moveaxis(rows, 1, 0).reshape(program.targets.shape[1], -1)
        return jnp.kron(jnp.eye(len(program.targets), dtype=rows.dtype), rows)

    def _blocks(self, x: Array) -> Array:
        return x.reshape(*self.program.linear().shape)

    def _parts(self, s: Array) -> "Points":
        like = jax.eval_shape(self.program.offset)
        parts, start = [], 0
        for leaf in like:
            parts.append(s[start : start + leaf.size].reshape(leaf.shape))
            start += leaf.size
        return tuple(parts)


class _FlatScaling(Scaling):
    """From the form's vectors to the program's points."""

    form: ConeLassoForm

    def scale(self, s, y):
        s, y = self.form.scaling.scale(s, y)
        return _joined(s), _joined(y)

    def unscale(self, x, s, y):
        return self.form.points(x, s, y)


def _joined(parts: "Points") -> Array:
    return jnp.concatenate([part.ravel() for part in parts])
