"""Settings of the whole test session, and the one fixture every file may use."""

import gc
import os
import subprocess
import sys
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


# Most of the tests' time is compilation of programs that run once: a third of it with these.
QUICK_COMPILATION = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"


def pytest_configure(config: pytest.Config) -> None:
    """Compilation: quick, unless XLA_FLAGS are given; kept between workers, subprocesses and runs."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # for subprocesses, as above
    if "XLA_FLAGS" not in os.environ:  # workers inherit it
        os.environ["XLA_FLAGS"] = QUICK_COMPILATION if _is_known(QUICK_COMPILATION) else ""
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(config.cache.mkdir("jax"))
    jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def _is_known(flags: str) -> bool:
    """Whether this version of XLA takes the flags: it aborts where it does not."""
    probe = [sys.executable, "-c", "import jax; jax.devices()"]
    environment = {**os.environ, "XLA_FLAGS": flags}
    return subprocess.run(probe, env=environment, capture_output=True).returncode == 0


@pytest.fixture(scope="module", autouse=True)
def forget_compiled_programs():
    """Thousands of programs in one process exhaust its memory maps, and XLA aborts."""
    yield
    jax.clear_caches()
    gc.collect()


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Random numbers that depend on the file's and the test's name only, not on folder or worker."""
    name = f"tests/{request.node.path.name}::{request.node.nodeid.partition('::')[2]}"
    return np.random.default_rng(zlib.crc32(name.encode()))
