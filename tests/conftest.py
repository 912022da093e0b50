"""Settings of the whole test session, and the one fixture every file may use."""

import gc
import os
import zlib

import hypothesis
import jax
import numpy as np
import pytest
import threadpoolctl

# The library follows the dtype of its arrays and sets no flag itself; the tests work in float64 and
# ask for float32 where they mean it.
jax.config.update("jax_enable_x64", True)

# One BLAS thread per worker: with several workers their threads only wait for each other.
threadpoolctl.threadpool_limits(1)

# No deadline: the first example of a jitted function pays for its compilation. The same examples in
# every run: a failure must come from the change at hand.
hypothesis.settings.register_profile("jaxcvxnn", deadline=None, derandomize=True)
hypothesis.settings.load_profile("jaxcvxnn")


def pytest_configure(config: pytest.Config) -> None:
    """Compiled programs are kept between tests, workers, subprocesses and runs: half of the time."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # for subprocesses, as above
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(config.cache.mkdir("jax"))
    jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


@pytest.fixture(scope="module", autouse=True)
def forget_compiled_programs():
    """Thousands of programs in one process exhaust its memory maps, and XLA aborts."""
    yield
    jax.clear_caches()
    gc.collect()


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Random numbers that depend on the test's name only, not on order or worker."""
    return np.random.default_rng(zlib.crc32(request.node.nodeid.encode()))
