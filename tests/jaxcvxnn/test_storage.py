"""Networks on disk come back bit for bit, and other files are refused."""

import json

import jax
import numpy as np
import pytest

from jaxcvxnn import LeakyReLU, Polynomial, TwoLayerReLU, load_network, save_network
from jaxcvxnn.files.storage import FORMAT_VERSION
from jaxcvxnn.networks import two_layer


def random_network(rng, dtype=np.float64, bias=False, shape=(3, 5, 2)):
    d, m, c = shape
    draw = lambda *size: rng.standard_normal(size).astype(dtype)  # noqa: E731
    return TwoLayerReLU(draw(d, m), draw(m, c), draw(m) if bias else None)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_round_trip_is_exact(tmp_path, rng, dtype, bias):
    network = random_network(rng, dtype, bias)
    extremes = np.array([np.finfo(dtype).tiny / 8, -0.0, np.finfo(dtype).max], dtype)
    network.U[0, :3] = extremes
    loaded, metadata = load_network(save_network(tmp_path / "net.npz", network))
    assert metadata == {}
    assert (loaded.b is not None) == bias
    for name in ("U", "V", "b") if bias else ("U", "V"):
        before, after = np.asarray(getattr(network, name)), np.asarray(getattr(loaded, name))
        assert after.dtype == dtype and after.tobytes() == before.tobytes()
    X = jax.numpy.asarray(rng.standard_normal((7, 3)), dtype)
    network.U[0, :3] = 1
    loaded, _ = load_network(save_network(tmp_path / "net.npz", network))
    np.testing.assert_array_equal(loaded.predict(X), network.predict(X))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    "activation", [LeakyReLU(-1), LeakyReLU(0.01), Polynomial(1 / 3, -0.5, 0.1)]
)
def test_activations_come_back(tmp_path, rng, activation, bias):
    plain = random_network(rng, bias=bias)
    network = two_layer(plain.U, plain.V, plain.b, activation=activation)
    loaded, metadata = load_network(save_network(tmp_path / "n", network, metadata={"a": 1}))
    assert type(loaded) is type(network) and loaded.activation == activation
    assert metadata == {"a": 1}
    X = rng.standard_normal((4, 3))
    np.testing.assert_array_equal(loaded.predict(X), network.predict(X))


def test_only_other_activations_need_a_newer_reader(tmp_path, rng):
    """Files of ReLU networks are what they were; who reads version 1 only refuses the others."""
    plain = random_network(rng)
    other = two_layer(plain.U, plain.V, activation=Polynomial())
    with np.load(save_network(tmp_path / "a", plain)) as archive:
        assert int(archive["format_version"]) == 1
        assert set(archive) == {"format", "format_version", "metadata", "U", "V"}
    with np.load(save_network(tmp_path / "b", other)) as archive:
        stored = dict(archive)
    assert int(stored["format_version"]) == 2
    assert json.loads(str(stored["activation"])) == {
        "name": "polynomial",
        "a": 0.09,
        "b": 0.5,
        "c": 0.47,
    }
    for text in ('{"name": "tanh"}', '{"name": "polynomial", "a": 0}', '{"slope": 2}', "[]", "{"):
        np.savez(tmp_path / "b.npz", **(stored | {"activation": np.array(text)}))  # pyright: ignore
        with pytest.raises(ValueError, match="is damaged"):
            load_network(tmp_path / "b.npz")


def test_float64_survives_where_jax_works_in_float32(tmp_path, rng):
    network = random_network(rng)
    path = save_network(tmp_path / "net.npz", network)
    with jax.enable_x64(False):
        loaded, _ = load_network(path)
        assert np.asarray(loaded.U).tobytes() == network.U.tobytes()
        assert loaded.predict(jax.numpy.ones((1, 3))).dtype == np.float32


def test_jax_arrays_and_empty_networks(tmp_path, rng):
    network = jax.tree.map(jax.numpy.asarray, random_network(rng, shape=(3, 0, 2)))
    loaded, _ = load_network(save_network(tmp_path / "net", network))
    assert (loaded.in_features, loaded.width, loaded.out_features) == (3, 0, 2)


def test_path_gets_its_ending_and_leaves_nothing_else(tmp_path, rng):
    network = random_network(rng)
    assert save_network(tmp_path / "net", network) == tmp_path / "net.npz"
    assert save_network(str(tmp_path / "v1.5"), network) == tmp_path / "v1.5.npz"
    assert save_network(tmp_path / "net.npz", network) == tmp_path / "net.npz"
    assert {p.name for p in tmp_path.iterdir()} == {"net.npz", "v1.5.npz"}


def test_metadata(tmp_path, rng):
    given = {
        "classes": ("häuser", "b"),
        "bound": np.float64(1 / 3),
        "mean": np.array([0.1, 1e-300]),
        "n": np.int64(3),
        "nothing": None,
        "path": tmp_path,
    }
    _, metadata = load_network(save_network(tmp_path / "n", random_network(rng), metadata=given))
    assert metadata == {
        "classes": ["häuser", "b"],
        "bound": 1 / 3,
        "mean": [0.1, 1e-300],
        "n": 3,
        "nothing": None,
        "path": str(tmp_path),
    }
    with pytest.raises(TypeError, match="cannot be written as JSON: set is not a JSON type"):
        save_network(tmp_path / "bad", random_network(rng), metadata={"a": {1, 2}})
    assert not (tmp_path / "bad.npz").exists()


def test_failed_save_keeps_the_old_file(tmp_path, rng, monkeypatch):
    path = save_network(tmp_path / "net.npz", random_network(rng))
    before = path.read_bytes()

    def full_disk(file, **_):
        file.write(b"half a netw")
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez", full_disk)
    with pytest.raises(OSError, match="no space left"):
        save_network(path, random_network(rng))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["net.npz"]


def test_only_plain_floats_are_saved(tmp_path, rng):
    with jax.enable_x64(True):
        half = jax.numpy.ones((2, 2), jax.numpy.bfloat16)
    with pytest.raises(TypeError, match="U has dtype bfloat16"):
        save_network(tmp_path / "net", TwoLayerReLU(half, half))


def test_other_files_are_refused(tmp_path):
    cases = {
        "text.npz": b"length,width\n1,2\n",
        "empty.npz": b"",
        "broken.npz": b"PK\x03\x04 and then nothing of use",
    }
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name} is not a network file"):
            load_network(tmp_path / name)
    np.save(tmp_path / "array.npy", np.ones(3))
    with pytest.raises(ValueError, match="array.npy is not a network file"):
        load_network(tmp_path / "array.npy")
    np.savez(tmp_path / "other.npz", U=np.ones((2, 2)), V=np.ones((2, 2)))
    with pytest.raises(ValueError, match="it has no format entry 'jaxcvxnn.network'"):
        load_network(tmp_path / "other.npz")
    np.savez(tmp_path / "pickle.npz", format=np.array({"a": 1}, object))
    with pytest.raises(ValueError, match="pickle.npz is not a network file"):
        load_network(tmp_path / "pickle.npz")
    with pytest.raises(FileNotFoundError):
        load_network(tmp_path / "missing.npz")


def test_cut_off_file_is_refused(tmp_path, rng):
    path = save_network(tmp_path / "net.npz", random_network(rng))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="not a network file"):
        load_network(path)
    flipped = bytearray(whole)
    place = whole.index(np.asarray(load(whole, tmp_path).V).tobytes())
    flipped[place] ^= 1
    path.write_bytes(flipped)
    with pytest.raises(ValueError, match="CRC"):
        load_network(path)


def load(content: bytes, folder):
    (folder / "copy.npz").write_bytes(content)
    return load_network(folder / "copy.npz")[0]


def test_newer_version_and_damaged_contents(tmp_path, rng):
    path = save_network(tmp_path / "net.npz", random_network(rng))
    with np.load(path) as archive:
        stored = dict(archive)
    assert json.loads(str(stored["metadata"])) == {}

    def changed(**entries):
        np.savez(path, **{k: v for k, v in (stored | entries).items() if v is not None})
        return load_network(path)

    with pytest.raises(ValueError, match=f"format version 99, .* reads up to {FORMAT_VERSION}"):
        changed(format_version=np.array(99))
    with pytest.raises(ValueError, match="is damaged: .*V of shape"):
        changed(V=np.ones((4, 2)))
    with pytest.raises(ValueError, match="is damaged: 'V'"):
        changed(V=None)
    with pytest.raises(ValueError, match="is damaged"):
        changed(metadata=np.array("{not json"))
