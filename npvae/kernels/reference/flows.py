"""Normalizing flows: invertible steps, and the log-determinants of their Jacobians.  Read after `priors.py`.

A draw z0 of density q0 is moved to z = f(z0).  Its density changes by the determinant of the Jacobian,

    log q(z) = log q0(z0) - log |det df/dz0|

and for several steps in a row the log-determinants add up.  So each step here writes z and log_det = log |det df/dz0|
for every image b and draw k.  Shapes:  z, z0 (B, K, Z);  log_det (B, K);  u, w, u_hat (B, Z);  bias, stretch (B,).
"""
import numpy as np

from .arrays import Array
from .dense import sigmoid, softplus


def _tanh_and_slope(a: Array) -> tuple[Array, Array]:
    """tanh(a) and its derivative 1 - tanh(a)^2 = 4 sigmoid(2 a) sigmoid(-2 a), accurate also where tanh rounds to 1."""
    return np.tanh(a), 4 * sigmoid(2 * a) * sigmoid(-2 * a)


def planar_direction_forward(u_hat: Array, stretch: Array, u: Array, w: Array) -> None:
    """u_hat, the direction of a planar step, from any u and any w that is not zero:

        u_hat = u + [m(a) - a] w / |w|^2,     a = w.u,     m(a) = -1 + softplus(a) > -1            (D14.4)

    Then  w.u_hat = a + [m(a) - a] = m(a) > -1  (Rezende and Mohamed 2015, appendix A.1), which makes the step z = z0 +
    u_hat tanh(w.z0 + bias)  invertible: along w it has the slope  1 + tanh' w.u_hat,  where  0 < tanh' <= 1,  and that
    must stay positive.  Computed without cancellation:

        m(a) - a = softplus(-a) - 1                since softplus(a) - a = softplus(-a)
        stretch  = softplus(a) = 1 + w.u_hat       for the step's determinant

    The identity, u_hat = 0, is not at u = 0 but at  u = log(e - 1) w / |w|^2,  where softplus(a) = 1.  For w = 0 the
    result is NaN.
    """
    a = np.sum(w * u, axis=-1)
    stretch[...] = softplus(a)
    pull = softplus(-a) - 1
    u_hat[...] = u + (pull / np.sum(w * w, axis=-1))[:, None] * w


def planar_direction_backward(du: Array, dw: Array, du_hat: Array, dstretch: Array, u: Array, w: Array) -> None:
    """Backward pass of  u_hat = u + c w,   c = pull / n,   pull = softplus(-a) - 1,   n = |w|^2,   a = w.u,  and of
    stretch = softplus(a):

        dpull = du_hat.w / n                              since du_hat/dc = w and dc/dpull = 1 / n
        dn    = -dpull c                                  since dc/dn = -c / n
        da    = -sigmoid(-a) dpull + sigmoid(a) dstretch
        du    = du_hat + da w                             directly, and through a                  (D14.12)
        dw    = c du_hat + da u + 2 dn w                  directly, through a, and through n
    """
    a, n = np.sum(w * u, axis=-1), np.sum(w * w, axis=-1)
    c = (softplus(-a) - 1) / n
    dpull = np.sum(du_hat * w, axis=-1) / n
    dn = -dpull * c
    da = -sigmoid(-a) * dpull + sigmoid(a) * dstretch
    du[...] = du_hat + da[:, None] * w
    dw[...] = c[:, None] * du_hat + da[:, None] * u + 2 * dn[:, None] * w


def planar_forward(z: Array, log_det: Array, pre: Array, z0: Array, u_hat: Array, stretch: Array, w: Array,
                   bias: Array) -> None:
    """z = z0 + u_hat t,   t = tanh(pre),   pre = w.z0 + bias:   a push along u_hat, away from the plane pre = 0 or
    towards it (Rezende and Mohamed 2015, equations 10 to 12).

    The Jacobian is  I + u_hat psi^T  with  psi = (1 - t^2) w.  By the matrix determinant lemma its determinant is
    1 + u_hat.psi, and with  u_hat.w = stretch - 1

        det = 1 + (1 - t^2)(stretch - 1) = t^2 + (1 - t^2) stretch                                 (D14.3)
        log_det = log det

    As stretch > 0, no term of the last form is negative, and nothing cancels.  pre (B, K) is kept for the backward
    pass. All K draws of an image share its u_hat, w and bias.
    """
    pre[...] = np.sum(w[:, None, :] * z0, axis=-1) + bias[:, None]
    t, slope = _tanh_and_slope(pre)
    z[...] = z0 + u_hat[:, None, :] * t[:, :, None]
    log_det[...] = np.log(t * t + slope * stretch[:, None])


def planar_backward(dz0: Array, du_hat: Array, dstretch: Array, dw: Array, dbias: Array, dz: Array, dlog_det: Array,
                    pre: Array, z0: Array, u_hat: Array, stretch: Array, w: Array) -> None:
    """Backward pass of  t = tanh(pre),   z = z0 + u_hat t,   log_det = log det,   det = t^2 + (1 - t^2) stretch:

        ddet     = dlog_det / det
        dt       = dz.u_hat + 2 t (1 - stretch) ddet           through z and through det
        dpre     = (1 - t^2) dt                       (D14.5)  pre = w.z0 + bias
        dz0      = dz + dpre w                                 directly, and through pre
        du_hat   = sum_k t dz                         (D14.11)
        dstretch = sum_k (1 - t^2) ddet
        dw       = sum_k dpre z0,     dbias = sum_k dpre       shared by all draws
    """
    s = stretch[:, None]
    t, slope = _tanh_and_slope(pre)
    ddet = dlog_det / (t * t + slope * s)
    dpre = slope * (np.sum(dz * u_hat[:, None, :], axis=-1) + 2 * t * (1 - s) * ddet)
    dz0[...] = dz + dpre[:, :, None] * w[:, None, :]
    np.sum(dz * t[:, :, None], axis=1, out=du_hat)
    np.sum(slope * ddet, axis=1, out=dstretch)
    np.sum(dpre[:, :, None] * z0, axis=1, out=dw)
    np.sum(dpre, axis=1, out=dbias)


def gate_forward(z: Array, log_det: Array, z0: Array, net: Array) -> None:
    """One step of an inverse autoregressive flow (Kingma et al. 2016, section 4).   net (B, K, 2 Z) = [m, g]:

        gate = sigmoid(g),   z = gate z0 + (1 - gate) m,   log_det = sum_j log gate_j = -sum_j softplus(-g_j)   (D14.6)

    The gate, in (0, 1), says for each dimension how much of z0 is kept.  m_j and g_j must depend neither on z0_j nor
    on any dimension after it in the order (`layers.py`).  Then dz/dz0 is triangular in that order with the gates on the
    diagonal, and its determinant is their product.

    log gate = -softplus(-g) and 1 - gate = sigmoid(-g) are accurate also where the gate rounds to 0 or to 1.
    """
    m, g = np.split(net, 2, axis=-1)
    z[...] = sigmoid(g) * z0 + sigmoid(-g) * m
    np.sum(-softplus(-g), axis=-1, out=log_det)


def gate_backward(dz0: Array, dnet: Array, dz: Array, dlog_det: Array, z0: Array, net: Array) -> None:
    """Backward pass of  gate = sigmoid(g),   z = gate z0 + (1 - gate) m,   log_det = sum_j log gate_j,   net = [m, g]:

        dz0 = gate dz                            the direct path; the caller adds the path through net (D14.13)
        dm  = (1 - gate) dz
        dg  = (1 - gate) [gate (z0 - m) dz + dlog_det]         (D14.7)  d gate / dg = gate (1 - gate);
                                                                        d log gate / dg = 1 - gate
    """
    (m, g), (dm, dg) = np.split(net, 2, axis=-1), np.split(dnet, 2, axis=-1)
    gate, rest = sigmoid(g), sigmoid(-g)
    dz0[...] = gate * dz
    dm[...] = rest * dz
    dg[...] = rest * (gate * (z0 - m) * dz + dlog_det[:, :, None])
