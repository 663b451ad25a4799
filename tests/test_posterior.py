"""How sure a fit is: laws of a Gaussian, and that nine intervals of ten hold the truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_recipe import TRUTH, observe
from toy import toy_model, toy_scene

from facefit.fitting.posterior import Posterior, neutral_sigma_mm, rigid_moves
from facefit.fitting.recipe import fit
from facefit.fitting.stages import FAST
from facefit.models.face_model import LinearFaceModel


def test_a_covariance_is_the_block_of_the_inverse() -> None:
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(9, 9, dtype=torch.float64, generator=generator)
    posterior = Posterior(root @ root.T + torch.eye(9), {"rotation": slice(0, 3), "identity": slice(3, 9)})
    inverse = torch.linalg.inv(posterior.precision)
    torch.testing.assert_close(posterior.covariance("identity"), inverse[3:, 3:])
    torch.testing.assert_close(posterior.sigma("rotation"), inverse.diagonal()[:3].sqrt())


def test_without_a_prior_it_says_so() -> None:
    flat = Posterior(torch.zeros(3, 3, dtype=torch.float64), {"rotation": slice(0, 3)})
    with pytest.raises(ValueError, match="without prior"):
        flat.covariance("rotation")


def test_what_is_known_before_is_the_prior() -> None:
    """With the prior alone a vertex strays as the modes say, once rigid motion is taken out."""
    model = toy_model()
    size = model.n_identity
    posterior = Posterior(torch.eye(size, dtype=torch.float64), {"identity": slice(0, size)})
    sigma = neutral_sigma_mm(model, posterior, model.mean)
    whole = model.identity_basis.pow(2).sum(0).sqrt().numpy()
    face = model.topology.region("face")
    assert (sigma[face] ** 2).sum() <= (whole[face] ** 2).sum() * (1 + 1e-5)
    assert (sigma[face] ** 2).sum() > 0.2 * (whole[face] ** 2).sum()


def test_a_motion_of_the_whole_face_is_no_uncertainty_of_its_shape() -> None:
    model = toy_model()
    moves = (
        rigid_moves(model.mean - model.mean.mean(0))
        * torch.tensor([1.0, 1, 1, 0.01, 0.01, 0.01])[:, None, None]
    )
    rigid: LinearFaceModel = replace(model, identity_basis=moves.contiguous())
    posterior = Posterior(torch.eye(6, dtype=torch.float64), {"identity": slice(0, 6)})
    assert neutral_sigma_mm(rigid, posterior, model.mean).max() < 1e-3


def test_worse_landmarks_leave_more_doubt() -> None:
    model, doubt = toy_model(), []
    for sigma_px in (0.1, 4.0, 16.0):
        covariance = np.tile(np.eye(2) * sigma_px**2, (68, 1, 1))
        result = fit(replace(observe(TRUTH), landmark_covariance=covariance), model, stages=FAST)
        sigma = result.vertex_sigma_mm()
        assert sigma is not None and np.isfinite(sigma).all()
        doubt.append(float(sigma[model.topology.region("face")].mean()))
    assert doubt == sorted(doubt) and doubt[2] > 1.2 * doubt[0]


def test_a_fit_of_nothing_claims_nothing() -> None:
    result = fit(replace(observe(TRUTH), landmarks=None), toy_model(), stages=FAST)
    assert result.posterior is None and result.vertex_sigma_mm() is None


@pytest.mark.slow
def test_nine_intervals_of_ten_hold_the_truth() -> None:
    """Landmarks with the noise they are said to have: over many heads the 90 % intervals hold 85 to 95 %."""
    model, held = toy_model(), []
    face = model.topology.region("face")
    for seed in range(40):
        random = torch.Generator().manual_seed(seed)
        truth = replace(
            toy_scene(seed, yaw=float(50 * torch.rand(1, generator=random) - 25)),
            identity=torch.randn(model.n_identity, generator=random),
            expression=torch.randn(model.n_expression, generator=random),
        )
        seen = observe(truth, focal_sigma=0.0)
        assert seen.landmarks is not None
        noise = np.random.default_rng(seed).normal(scale=2.0, size=(68, 2))
        covariance = np.tile(np.eye(2) * 4.0, (68, 1, 1))
        noisy = replace(seen, landmarks=seen.landmarks + noise, landmark_covariance=covariance)
        result = fit(noisy, model, stages=FAST)
        sigma = result.vertex_sigma_mm()
        assert sigma is not None
        a = result.scene.neutral_shape(model).double().numpy()[face]
        b = truth.neutral_shape(model).double().numpy()[face]
        a, b = a - a.mean(0), b - b.mean(0)
        u, _, v = np.linalg.svd(a.T @ b)
        turn = u @ np.diag([1, 1, np.sign(np.linalg.det(u @ v))]) @ v
        held.append(float((np.abs(a @ turn - b) <= 1.645 * sigma[face]).mean()))
    assert 0.85 <= np.mean(held) <= 0.95
