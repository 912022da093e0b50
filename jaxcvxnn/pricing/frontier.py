"""The open cones of a branch and bound, stored by how many undecided rows they have."""

import numpy as np

from ..arrays import Matrix
from .simplicial_cones import Cones


class Shelf:
    """Cones of at most `width` undecided rows, in slots. A free slot has the bound -inf."""

    def __init__(self, rank: int, outputs: int, width: int):
        self.width = width
        self.bounds = np.full(0, -np.inf)
        self.cones = _empty(0, rank, outputs, width)

    def take(self, slots: np.ndarray) -> Cones:
        return self.cones.take(slots)

    def free(self, slots: np.ndarray) -> None:
        self.bounds[slots] = -np.inf

    def add(self, bounds: Matrix, cones: Cones) -> None:
        """Cones first, bounds last: an interrupt in between leaves what was there before."""
        slots = np.flatnonzero(self.bounds == -np.inf)[: len(bounds)]
        if len(slots) < len(bounds):
            self._grow(len(self.bounds) + 2 * len(bounds))
            slots = np.flatnonzero(self.bounds == -np.inf)[: len(bounds)]
        for store, array in zip(self.cones, cones, strict=True):
            store[slots] = array
        self.bounds[slots] = bounds

    def _grow(self, size: int) -> None:
        rank, outputs = self.cones.folded.shape[2], self.cones.folded.shape[1]
        cones = _empty(size, rank, outputs, self.width)
        bounds = np.full(size, -np.inf)
        for new, old in zip(cones, self.cones, strict=True):
            new[: len(old)] = old
        bounds[: len(self.bounds)] = self.bounds
        # The longer cones serve the shorter bounds as well, should an interrupt come in between.
        self.cones = cones
        self.bounds = bounds


class Frontier:
    """Shelves of about four widths per octave, and the choice of what is split next."""

    def __init__(self, rank: int, outputs: int, padding: int):
        self.rank, self.outputs, self.padding = rank, outputs, padding
        self.shelves: dict[int, Shelf] = {}

    @property
    def highest(self) -> float:
        tops = (np.max(s.bounds, initial=-np.inf) for s in self.shelves.values())
        return float(max(tops, default=-np.inf))

    def add(self, bounds: Matrix, cones: Cones) -> None:
        """The undecided rows of each cone stand in front of the padding."""
        counts = np.sum(cones.rows < self.padding, axis=1)
        step = np.maximum(4, 2 ** np.maximum(np.frexp(counts)[1] - 3, 0))
        widths = -(-counts // step) * step
        for width in np.unique(widths):
            index = np.flatnonzero(widths == width)
            some = cones.take(index)
            rows = np.full((len(index), width), self.padding, np.int32)
            common = min(int(width), some.rows.shape[1])
            rows[:, :common] = some.rows[:, :common]
            if width not in self.shelves:
                self.shelves[int(width)] = Shelf(self.rank, self.outputs, int(width))
            self.shelves[int(width)].add(bounds[index], some._replace(rows=rows))

    def select(
        self, number: int, threshold: float, capacity: int
    ) -> list[tuple[Shelf, np.ndarray]]:
        """About `number` slots with bounds above `threshold`: the highest, or with more than
        `capacity` such cones the lowest, which are closest to being closed and free their memory.
        """
        shelves = list(self.shelves.values())
        slots = [np.flatnonzero(shelf.bounds > threshold) for shelf in shelves]
        bounds = np.concatenate([s.bounds[i] for s, i in zip(shelves, slots, strict=True)])
        chosen = np.ones(len(bounds), bool)
        if len(bounds) > number:
            order = bounds if len(bounds) > capacity else -bounds
            chosen[np.argpartition(order, number)[number:]] = False
        ends = np.cumsum([len(index) for index in slots])[:-1]
        picked = np.split(chosen, ends)
        return [
            (shelf, index[mask])
            for shelf, index, mask in zip(shelves, slots, picked, strict=True)
            if np.any(mask)
        ]


def _empty(count: int, rank: int, outputs: int, width: int) -> Cones:
    return Cones(
        generators=np.empty((count, rank, rank)),
        radii=np.empty((count, rank)),
        folded=np.empty((count, outputs, rank)),
        rows=np.empty((count, width), np.int32),
    )
