"""The loops of the compiled kernel; numba makes one version for each precision.

They run along time without branches, so that they become vector instructions.
Everything is in base two, where an exponential is a shift of exponent bits and a
polynomial: e^s = 2^(s log2 e). See :mod:`.interface` for the names.
"""
# mypy: disable-error-code="no-untyped-def, call-arg"

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import float32, int32, njit
from numba.core import types
from numba.extending import intrinsic, overload

from bsym_sklearn.model.kernels.interface import TAPS

# Not "nnan" and "ninf": a NaN that came in must come out.
FAST_MATH = {"reassoc", "contract", "nsz", "arcp"}
REGION_BLOCK = 32  # regions whose rows stay in the cache while all queries pass
LARGEST = 100.0  # exponents stop here, before the sum of their powers overflows
SATURATED = 2.0**LARGEST
RESCALE_ABOVE = 2.0**30  # sum of a row, relative to the running scale
LOG2E, LN2 = math.log2(math.e), math.log(2)

_jit = njit(nogil=True, fastmath=FAST_MATH, error_model="numpy")
_inline = njit(fastmath=FAST_MATH, error_model="numpy", inline="always")


@intrinsic
def _as_float(typing, bits):  # noqa: ARG001  (names that numba passes)
    """Read the bits of an int32 as a float32."""

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.float32))

    return types.float32(types.int32), generate


def _exp2(x):
    """Return 2^x, at most 2^LARGEST; implemented for each precision below."""
    raise NotImplementedError


def _exp2_single(x):
    """Return 2^x, zero under 2^-126; relative error 2e-7."""
    # Comparisons, not min and max: these would turn a NaN into a number.
    x = float32(-127) if x < float32(-127) else x  # noqa: FURB136
    x = float32(LARGEST) if x > float32(LARGEST) else x  # noqa: FURB136
    x = x + float32(127)  # the bias of the exponent; not negative, so int32 is floor
    whole = int32(x)
    f = x - float32(whole)
    # Minimax polynomial of 2^f on [0, 1], relative error 2e-9.
    p = float32(2.1702255e-4)
    p = p * f + float32(1.2439688e-3)
    p = p * f + float32(9.6788410e-3)
    p = p * f + float32(5.5483342e-2)
    p = p * f + float32(2.4022984e-1)
    p = p * f + float32(6.9314698e-1)
    p = p * f + float32(1)
    return p * _as_float(whole << int32(23))


def _exp2_double(x):
    """Return 2^x."""
    return 2.0 ** (LARGEST if x > LARGEST else x)  # noqa: FURB136


@overload(_exp2, inline="always", jit_options={"fastmath": FAST_MATH})
def _exp2_of(x):
    return _exp2_single if x == types.float32 else _exp2_double


@_inline
def _sum_row(a, b, m0, m1, m2, m3, m4, scale, x, shift, column):
    """Add one region's tokens to `column`; return their other sums."""
    n = b.size
    x0, x1, x2, x3, x4 = x[:n], x[1:], x[2:], x[3:], x[4:]
    zero = b.dtype.type(0)
    total, row = zero, zero
    t0, t1, t2, t3, t4 = zero, zero, zero, zero, zero
    for t in range(n):
        slope = m0 * x0[t] + m1 * x1[t] + m2 * x2[t] + m3 * x3[t] + m4 * x4[t]
        p = _exp2((a + b[t] + slope) * scale[t] - shift)
        q = p * scale[t]
        total += p
        row += q
        column[t] += q
        t0 += q * x0[t]
        t1 += q * x1[t]
        t2 += q * x2[t]
        t3 += q * x3[t]
        t4 += q * x4[t]
    return total, row, t0, t1, t2, t3, t4


# Loops instead of array expressions throughout: these take seconds to compile.


@_jit
def _multiply(x, factor, out):
    """Write the product of a vector and a number."""
    for k in range(x.size):
        out[k] = x[k] * factor


@_jit
def _sum_query(alpha, b, slope, scale, series, shift, rows, column, taps, mass):
    """Sum over all tokens for one query, relative to 2^shift.

    The shift follows the largest exponent from below. Returns it with the sum of
    the powers, or a negative sum if they would overflow.
    """
    real = b.dtype.type
    log2e = real(LOG2E)
    m0, m1, m2 = slope[0] * log2e, slope[1] * log2e, slope[2] * log2e
    m3, m4 = slope[3] * log2e, slope[4] * log2e
    total = real(0)
    for sums in (rows, column, taps, mass):
        for k in range(sums.size):
            sums[k] = total
    for r in range(alpha.size):
        a = alpha[r] * log2e
        z, q, t0, t1, t2, t3, t4 = _sum_row(
            a, b, m0, m1, m2, m3, m4, scale[r], series[r], shift, column
        )
        if z >= real(SATURATED):
            return real(-1), shift
        total += z
        rows[r] = q
        mass[r] = z
        taps[0] += t0
        taps[1] += t1
        taps[2] += t2
        taps[3] += t3
        taps[4] += t4
        if z > real(RESCALE_ABOVE):
            shift += real(math.log2(z))
            factor = real(1) / z
            total *= factor
            _multiply(column, factor, column)
            _multiply(taps, factor, taps)
            _multiply(rows, factor, rows)
            _multiply(mass, factor, mass)
    return total, shift


@_jit
def _largest_exponent(alpha, b, slope, scale, series):
    """Return the largest exponent of one query."""
    log2e = b.dtype.type(LOG2E)
    largest = (alpha[0] * log2e + b[0]) * scale[0, 0]
    for r in range(alpha.size):
        for t in range(b.size):
            score = alpha[r]
            for k in range(TAPS):
                score += slope[k] * series[r, t + k]
            largest = max(largest, (score * log2e + b[t]) * scale[r, t])
    return largest


@_jit
def forward(
    first, last, alpha, beta, slope, scale, series, rows, columns, taps, mass, log_total
):
    """Fill the moments of the queries first, ..., last - 1 of all scans."""
    real = alpha.dtype.type
    b = np.empty(beta.shape[2], alpha.dtype)
    for query in range(first, last):
        scan, i = query // alpha.shape[1], query % alpha.shape[1]
        _multiply(beta[scan, i], real(LOG2E), b)
        a, m, s, x = alpha[scan, i], slope[scan, i], scale[scan], series[scan]
        row, column, tap, weight = (
            rows[scan, i], columns[scan, i], taps[scan, i], mass[scan, i]
        )  # fmt: skip
        shift = (a[0] * real(LOG2E) + b[0]) * s[0, 0]
        total, shift = _sum_query(a, b, m, s, x, shift, row, column, tap, weight)
        if total < 0:  # rare: the exponents rise by LARGEST from one row to the next
            shift = _largest_exponent(a, b, m, s, x)
            total, shift = _sum_query(a, b, m, s, x, shift, row, column, tap, weight)
        log_total[scan, i] = (shift + real(math.log2(total))) * real(LN2)
        factor = real(1) / total
        _multiply(row, factor, row)
        _multiply(column, factor, column)
        _multiply(tap, factor, tap)
        _multiply(weight, factor, weight)


def _make_backward(with_series: bool) -> Callable[..., None]:
    """Make the backward loop with or without the gradient of the windows."""

    @_inline
    def add_row(
        a, b, m0, m1, m2, m3, m4, ga, gb, g0, g1, g2, g3, g4,
        scale, x, log_total, delta, d_beta, d_scale, d_windows,
    ):  # fmt: skip
        """Add one region's tokens to the gradients of a query; return their sums."""
        n = b.size
        x0, x1, x2, x3, x4 = x[:n], x[1:], x[2:], x[3:], x[4:]
        zero, ln2 = b.dtype.type(0), b.dtype.type(LN2)
        row = zero
        t0, t1, t2, t3, t4 = zero, zero, zero, zero, zero
        for t in range(n):
            s = scale[t]
            slope = m0 * x0[t] + m1 * x1[t] + m2 * x2[t] + m3 * x3[t] + m4 * x4[t]
            score = (a + b[t] + slope) * s
            p = _exp2(score - log_total)
            g = g0 * x0[t] + g1 * x1[t] + g2 * x2[t] + g3 * x3[t] + g4 * x4[t]
            d_p = (ga + gb[t] + g) * s
            d_score = p * (d_p - delta)
            q = d_score * s
            d_scale[t] += p * d_p + d_score * (score * ln2)
            d_beta[t] += q
            row += q
            t0 += q * x0[t]
            t1 += q * x1[t]
            t2 += q * x2[t]
            t3 += q * x3[t]
            t4 += q * x4[t]
            if with_series:
                u = q * ln2  # as m0, ..., m4 are in base two
                v = p * s
                d_windows[0, t] += u * m0 + v * g0
                d_windows[1, t] += u * m1 + v * g1
                d_windows[2, t] += u * m2 + v * g2
                d_windows[3, t] += u * m3 + v * g3
                d_windows[4, t] += u * m4 + v * g4
        return row, t0, t1, t2, t3, t4

    @_jit
    def backward(
        scan, first, last, alpha, beta, slope, scale, series,
        g_rows, g_columns, g_taps, log_total, delta,
        d_alpha, d_scale, d_windows, d_beta, d_slope,
    ):  # fmt: skip
        """Add what the regions first, ..., last - 1 of a scan give to gradients.

        `d_scale` is left to be divided by `scale`.
        """
        log2e = alpha.dtype.type(LOG2E)
        b = np.empty(beta.shape[2], alpha.dtype)
        for begin in range(first, last, REGION_BLOCK):
            for i in range(alpha.shape[1]):
                _multiply(beta[scan, i], log2e, b)
                m, g, d_m = slope[scan, i], g_taps[scan, i], d_slope[scan, i]
                for r in range(begin, min(begin + REGION_BLOCK, last)):
                    row, t0, t1, t2, t3, t4 = add_row(
                        alpha[scan, i, r] * log2e, b,
                        m[0] * log2e, m[1] * log2e, m[2] * log2e,
                        m[3] * log2e, m[4] * log2e,
                        g_rows[scan, i, r], g_columns[scan, i],
                        g[0], g[1], g[2], g[3], g[4],
                        scale[scan, r], series[scan, r],
                        log_total[scan, i] * log2e, delta[scan, i],
                        d_beta[scan, i], d_scale[scan, r], d_windows[scan, r],
                    )  # fmt: skip
                    d_alpha[scan, i, r] = row
                    d_m[0] += t0
                    d_m[1] += t1
                    d_m[2] += t2
                    d_m[3] += t3
                    d_m[4] += t4

    return backward


backward = _make_backward(with_series=False)
backward_with_series = _make_backward(with_series=True)
