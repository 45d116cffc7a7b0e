"""SciPy's element-wise functions, recognised by identity once SciPy is loaded."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special

from tracedsl import kernel

ONE = ["erf", "erfc", "expit", "exp2", "expm1", "log1p", "cbrt", "ndtr", "exp10", "logit"]
TWO = ["xlogy", "xlog1py"]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ONE + TWO)
def test_values_are_scipys(name: str, dtype: type) -> None:
    function = getattr(scipy.special, name)

    @kernel(strict=True)
    def apply(*arguments):  # type: ignore[no-untyped-def]
        return function(*arguments)

    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(0.01, 0.99, 200), rng.normal(size=100) if name not in ("logit",) else [],
                        [0.0, 1.0, np.inf, -np.inf, np.nan]]).astype(dtype)
    arguments = [x] if name in ONE else [v.ravel() for v in np.meshgrid(x, x)]
    with np.errstate(all="ignore"):
        want = function(*arguments)
    got = apply(*arguments)
    assert got.dtype == want.dtype
    np.testing.assert_allclose(got, want, rtol=8 * np.finfo(dtype).eps, atol=np.finfo(dtype).tiny)
