"""Networks on disk: one .npz file per network, readable without pickle.

Arrays in the file: `format` (the text "jaxcvxnn.network"), `format_version`, `U`, `V`,
`b` if the network has biases, and `metadata`, a JSON text. Where the activation is not ReLU there is
one more, `activation`, a JSON text of its name and settings, and the version is 2, since a reader of
version 1 would take the network for another one; files of ReLU networks stay at version 1.
"""

import dataclasses
import json
import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ..activations import ACTIVATIONS, RELU, AbstractActivation
from ..networks import AbstractTwoLayer, two_layer

FORMAT = "jaxcvxnn.network"
# The newest version that is read; RELU_VERSION has no activation in it.
FORMAT_VERSION = 2
RELU_VERSION = 1
_BROKEN_ZIP = (zipfile.BadZipFile, zlib.error)


def save_network(
    path: str | os.PathLike, network: AbstractTwoLayer, *, metadata: Mapping[str, Any] | None = None
) -> Path:
    """Write `network` to `path` and return the path written: like NumPy, ".npz" is added where
    it is missing.

    `metadata` is anything that JSON can hold; NumPy numbers and arrays become numbers and lists.
    The file is put in place only when it is complete, so an error never leaves half a network
    behind.

    Raises `TypeError` for metadata that JSON cannot hold or weights that are not floats of 16, 32
    or 64 bits.
    """
    path = Path(path)
    if path.suffix != ".npz":
        path = path.with_name(path.name + ".npz")
    try:
        text = json.dumps(dict(metadata or {}), default=_plain)
    except (TypeError, ValueError) as error:
        raise TypeError(f"the metadata cannot be written as JSON: {error}") from None
    arrays = {"U": np.asarray(network.U), "V": np.asarray(network.V)}
    version, activation = RELU_VERSION, {}
    if network.activation != RELU:
        version, activation = FORMAT_VERSION, {"activation": np.array(_written(network.activation))}
    if network.b is not None:
        arrays["b"] = np.asarray(network.b)
    for name, array in arrays.items():
        if array.dtype not in (np.float16, np.float32, np.float64):
            raise TypeError(
                f"{name} has dtype {array.dtype}: only float16, float32 and float64 can be saved"
            )
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(partial, "wb") as file:
            np.savez(
                file,
                format=np.array(FORMAT),
                format_version=np.array(version),
                metadata=np.array(text),
                **activation,  # pyright: ignore[reportArgumentType]
                **arrays,  # pyright: ignore[reportArgumentType]
            )
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def load_network(
    path: str | os.PathLike, *, plain: bool = False
) -> tuple[AbstractTwoLayer, dict[str, Any]]:
    """Read `(network, metadata)` back, bit for bit: a float64 network stays float64 also where
    JAX's 64-bit mode is off (computing with it then follows JAX's rule and happens in float32).

    With `plain`, files are also read that other programs wrote with nothing but the arrays U (d, m),
    V (m, c) and perhaps b (m,); their metadata are empty.

    Raises `ValueError` for a file of another kind, a damaged file and a newer format version,
    `OSError` for a file that cannot be read.
    """
    path = Path(path)
    wrong = f"{path} is not a network file written by jaxcvxnn.save_network"
    try:
        # Opened here, so that it is closed also where NumPy rejects its contents.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            stored = dict(archive)
    except OSError:
        raise
    except (ValueError, EOFError, KeyError, AttributeError, TypeError, *_BROKEN_ZIP) as error:
        raise ValueError(f"{wrong}: {error}") from None
    if "format" not in stored and {"U", "V"} <= set(stored) and plain:
        return _network(path, stored, {})
    if str(stored.get("format")) != FORMAT:
        raise ValueError(f"{wrong}: it has no format entry {FORMAT!r}")
    try:
        version = int(stored["format_version"])
        if version > FORMAT_VERSION:
            raise ValueError(
                f"{path} has format version {version}, this jaxcvxnn reads up to {FORMAT_VERSION}: "
                "install a newer jaxcvxnn"
            )
        metadata = json.loads(str(stored["metadata"]))
        return _network(path, stored, metadata)
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None


def _network(path: Path, stored: Mapping[str, Any], metadata: dict[str, Any]) -> Any:
    try:
        activation = _read(str(stored["activation"])) if "activation" in stored else RELU
        # As NumPy arrays: JAX would round float64 to float32 where its 64-bit mode is off.
        weights = stored["U"], stored["V"], stored.get("b")
        return two_layer(*weights, activation=activation), metadata
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from None


def _written(activation: AbstractActivation) -> str:
    return json.dumps({"name": activation.name, **dataclasses.asdict(activation)})


def _read(text: str) -> AbstractActivation:
    """The activation of `_written`; a `ValueError` for any other text."""
    settings = json.loads(text)
    kinds = {kind.name: type(kind) for kind in ACTIVATIONS.values()}
    try:
        return kinds[settings.pop("name")](**settings)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"there is no activation {text}: {error}") from None


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return np.asarray(value).tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} is not a JSON type")
