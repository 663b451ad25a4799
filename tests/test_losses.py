"""Losses: zero where they should be, the papers' numbers on small examples, and a way down for `Adam`."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toy import landmarks_of, observe, toy_model, toy_scene

from facefit.fitting.adam import Adam
from facefit.fitting.losses import (
    Features,
    IdMrf,
    Perceptual,
    Recognition,
    Ssim,
    Term,
    View,
    closure_loss,
    iou_loss,
    landmark_loss,
    magnitude,
    masked_l1,
    masked_l2,
    masked_norm,
    offset_magnitude,
    offset_symmetry,
    shape_consistency,
    shape_loss,
    silhouette_loss,
    smooth_albedo,
    smooth_shape,
    smoothness,
    symmetry,
    uv_symmetry,
)
from facefit.fitting.losses.view import Compare
from facefit.mesh import unique_edges
from facefit.models.scene import Scene
from facefit.picture import render

SIZE = 40


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 12, 3, 2), nn.BatchNorm2d(12), nn.Flatten()]
        return nn.Sequential(*layers).eval()


def two_pictures() -> tuple[Tensor, Tensor, Tensor]:
    a, b = torch.rand(2, SIZE, SIZE, 3, generator=generator(1)).double()
    mask = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    mask[6:34, 9:36] = True
    return a, b, mask


def comparisons(network: nn.Module) -> dict[str, Compare]:
    eye, deep = Features(network.double(), 32), Features(network.double(), 32, layers=("1", "3"))
    return {
        "l1": masked_l1,
        "l2": masked_l2,
        "norm": masked_norm,
        "ssim": Ssim(7),
        "perceptual": Perceptual(deep),
        "cosine": Recognition(eye),
        "recognition l1": Recognition(eye, "l1"),
        "recognition l2": Recognition(eye, "l2", over_photo=True),
        "id-mrf": IdMrf(deep),
    }


COMPARISONS = [
    "l1",
    "l2",
    "norm",
    "ssim",
    "perceptual",
    "cosine",
    "recognition l1",
    "recognition l2",
    "id-mrf",
]


@pytest.mark.parametrize("name", COMPARISONS)
def test_a_picture_differs_from_another_more_than_from_itself(network: nn.Module, name: str) -> None:
    a, b, mask = two_pictures()
    compare = comparisons(network)[name]
    same, different = (float(compare(x, a, mask).detach()) for x in (a, b))
    assert different > same + 1e-3
    if name != "id-mrf":  # whose least value depends on how alike a picture's own patches are
        assert same == pytest.approx(0, abs=2e-4)


@pytest.mark.parametrize("name", COMPARISONS)
def test_what_is_outside_the_mask_does_not_matter(network: nn.Module, name: str) -> None:
    a, b, mask = two_pictures()
    compare = comparisons(network)[name]
    other = torch.where(mask[..., None], a, 1 - a)
    torch.testing.assert_close(compare(other, b, mask), compare(a, b, mask))
    (gradient,) = torch.autograd.grad(compare(leaf := a.clone().requires_grad_(), b, mask), leaf)
    assert not bool(gradient[~mask].any()) and bool(gradient[mask].any())


@pytest.mark.parametrize("name", COMPARISONS)
def test_its_derivative_along_a_direction_is_a_central_difference(network: nn.Module, name: str) -> None:
    """Steps of 1e-6 in double precision; a kink (ReLU, absolute value) within them has probability 1e-4."""
    a, b, mask = two_pictures()
    compare, direction = comparisons(network)[name], torch.randn(a.shape, generator=generator(3)).double()
    (gradient,) = torch.autograd.grad(compare(leaf := a.clone().requires_grad_(), b, mask), leaf)
    step = 1e-6
    ahead, behind = (float(compare(a + s * direction, b, mask).detach()) for s in (step, -step))
    assert float((gradient * direction).sum()) == pytest.approx(
        (ahead - behind) / (2 * step), rel=1e-4, abs=1e-8
    )


@pytest.mark.parametrize("name", COMPARISONS)
def test_an_empty_mask_is_no_catastrophe(network: nn.Module, name: str) -> None:
    a, b, mask = two_pictures()
    value = comparisons(network)[name](a.requires_grad_(), b, torch.zeros_like(mask))
    if name != "cosine":  # of two black pictures: whatever the network's bias says
        assert bool(torch.isfinite(value))


def test_means_are_means_over_the_mask() -> None:
    _, b, mask = two_pictures()
    assert float(masked_l1(b + 0.2, b, mask)) == pytest.approx(0.2)
    assert float(masked_l2(b + 0.2, b, mask)) == pytest.approx(0.04)
    assert float(masked_norm(b + 0.2, b, mask)) == pytest.approx(0.2 * math.sqrt(3), rel=1e-5)


def test_structural_similarity_knows_structure_from_brightness() -> None:
    a, _, mask = two_pictures()
    shuffled = a.reshape(-1, 3)[torch.randperm(SIZE * SIZE, generator=generator(2))].reshape(a.shape)
    assert 0.4 < float(Ssim()(shuffled, a, mask)) < 0.6
    assert float(Ssim()(0.9 * a, a, mask)) < 0.02


def test_a_module_in_training_and_a_layer_that_is_not_there_are_refused(network: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"call .eval\(\) first"):
        Features(nn.Sequential(nn.Dropout()))
    with pytest.raises(ValueError, match="no layer conv9"):
        Features(network, layers=("conv9",))


def test_features_are_normalised_resized_and_reversed_as_asked() -> None:
    eye = Features(nn.Identity(), 20, mean=(0.1, 0.2, 0.3), std=(0.5, 1.0, 2.0), bgr=True)
    image = torch.tensor([0.6, 0.4, 0.7]).expand(SIZE, SIZE, 3)
    (seen,) = eye(image)
    assert seen.shape == (1, 3, 20, 20)
    torch.testing.assert_close(seen[0, :, 5, 5], torch.tensor([0.2, 0.2, 1.0]))


def test_every_patch_wants_one_of_its_own() -> None:
    """ID-MRF: a picture of one patch repeated is worse than one that has all patches, in any order."""
    texture = IdMrf(Features(nn.AvgPool2d(4).eval(), None))
    photo = torch.rand(SIZE, SIZE, 3, generator=generator(4))
    mask = torch.ones(SIZE, SIZE, dtype=torch.bool)
    rolled = photo.roll(8, 0)
    repeated = photo[:4, :4].repeat(SIZE // 4, SIZE // 4, 1)
    assert float(texture(rolled, photo, mask)) == pytest.approx(float(texture(photo, photo, mask)), rel=1e-4)
    assert float(texture(repeated, photo, mask)) > float(texture(photo, photo, mask)) + 0.5


# --- on scenes ---


def view(seed: int = 3, size: int = 64) -> tuple[View, Scene]:
    truth = toy_scene(seed)
    return View(observe(truth), toy_model(), size), truth


def test_a_view_shows_the_scene_where_the_photograph_shows_the_face() -> None:
    crop, truth = view(size=1000)
    picture = crop.picture(truth)
    assert crop.size == picture.color.shape[0] < 240  # never enlarged
    error = masked_l1(picture.color, crop.photo, picture.covered & crop.usable)
    assert float(error) < 0.01  # the photograph is antialiased and has 8 bits


def test_pictures_are_compared_on_the_face_or_on_the_whole_head() -> None:
    crop, truth = view()
    whole = View(crop.observation, toy_model(), 64, whole_head=True)
    picture = crop.picture(truth)
    face, head = crop.mask(picture), whole.mask(picture)
    assert torch.equal(head, picture.covered & crop.usable) and bool((face <= head).all())
    assert 0.3 * int(head.sum()) < int(face.sum()) < int(head.sum())


def test_losses_share_a_rendering_and_never_one_without_a_gradient() -> None:
    crop, truth = view()
    assert crop.picture(truth) is crop.picture(truth)
    with torch.no_grad():
        flat = crop.picture(truth)
    assert crop.picture(truth) is not flat


def test_a_term_is_a_weighted_named_loss(network: nn.Module) -> None:
    crop, truth = view()
    other = toy_scene(4)
    assert float(crop.term(masked_l2, 3.0)(other)) == pytest.approx(3 * float(crop.term(masked_l2)(other)))
    terms = [
        crop.term(masked_l2),
        crop.term(Recognition(Features(network.float()))),
        crop.term(masked_l1, name="x"),
    ]
    assert [term.name for term in terms] == ["masked_l2", "recognition", "x"]
    with torch.no_grad():
        assert all(float(term(truth)) < 0.2 * float(term(other)) for term in terms)


def test_landmarks_and_closure_vanish_at_the_truth_and_count_in_eye_distances() -> None:
    truth, model = toy_scene(3), toy_model()
    observation = observe(truth)
    assert observation.landmarks is not None
    for make in (landmark_loss, closure_loss):
        for norm in ("l1", "l2"):
            term = make(observation, model, norm)  # type: ignore[operator]
            assert term is not None and float(term(truth)) == pytest.approx(0, abs=1e-5)
            assert float(term(toy_scene(4))) > 1e-5
            assert make(replace(observation, landmarks=None), model, norm) is None  # type: ignore[operator]
    shifted = replace(observation, landmarks=observation.landmarks + [3.0, -4.0])
    eyes = observation.interocular_px
    l1, l2 = landmark_loss(shifted, model, "l1"), landmark_loss(shifted, model, "l2")
    assert l1 is not None and float(l1(truth)) == pytest.approx(7 / eyes, rel=1e-3)
    assert l2 is not None and float(l2(truth)) == pytest.approx(25 / eyes**2, rel=1e-3)
    closure = closure_loss(shifted, model)
    assert closure is not None and float(closure(truth)) == pytest.approx(0, abs=1e-5)


def test_a_known_shape_is_compared_in_mm() -> None:
    truth, model = toy_scene(3), toy_model()
    vertices = truth.shape(model) + torch.tensor([0.0, 3.0, 4.0])
    assert float(shape_loss(model, vertices)(truth)) == pytest.approx(25, rel=1e-4)
    with pytest.raises(ValueError, match="961 vertices"):
        shape_loss(model, vertices[:5])


def test_intersection_over_union_of_two_boxes() -> None:
    a, b = torch.zeros(2, 10, 10).unbind()
    a[2:6, 2:6], b[4:8, 2:6] = 1, 1
    assert float(iou_loss(a, b)) == pytest.approx(1 - 8 / 24)
    assert float(iou_loss(a, a)) == 0 and float(iou_loss(0 * a, 0 * a)) == 1


@pytest.mark.parametrize(("blur", "within_mm"), [(None, 0.5), (0.7, 1.5)])
def test_a_silhouette_alone_brings_a_displaced_head_back(blur: float | None, within_mm: float) -> None:
    """From 5 mm aside, some 2 pixels of the crop; the soft one, swollen, less exactly."""
    crop, truth = view()
    mask = render(truth, toy_model()).covered.numpy()
    term = silhouette_loss(crop, mask, blur_px=blur)
    aside = torch.tensor([4.0, -3.0, 0.0])
    start = truth.with_pose(replace(truth.pose, translation_mm=truth.pose.translation_mm + aside))
    scene, report = Adam(30, {"translation": 0.8}).solve([term], start, ("translation",))
    error = (scene.pose.translation_mm - truth.pose.translation_mm)[:2].abs()
    assert float(error.max()) < within_mm
    assert report.cost_after["silhouette"] < 0.6 * report.cost_before["silhouette"]


def test_a_mask_of_another_size_is_refused() -> None:
    crop, _ = view()
    with pytest.raises(ValueError, match=r"a mask of \(5, 5\)"):
        silhouette_loss(crop, np.zeros((5, 5), bool))


def test_smoothness_is_the_papers_sum() -> None:
    """Fan's equation 10 written out on the toy mesh."""
    triangles = toy_model().topology.triangles
    values = torch.randn(961, 3, generator=generator(5)).double()
    around: list[set[int]] = [set() for _ in range(961)]
    for a, b, c in triangles.tolist():
        around[a] |= {b, c}
        around[b] |= {a, c}
        around[c] |= {a, b}
    expected = np.mean(
        [
            np.mean([float(((values[i] - values[j]) ** 2).sum()) for j in js]) if js else 0
            for i, js in enumerate(around)
        ]
    )
    edges = torch.from_numpy(unique_edges(triangles))
    assert float(smoothness(values, edges)) == pytest.approx(expected)


def test_offsets_that_are_equal_are_smooth_and_mirrored_ones_symmetric() -> None:
    model = toy_model()
    assert model.topology.mirror is not None
    mirror = torch.from_numpy(model.topology.mirror)
    random = torch.randn(961, 3, generator=generator(6))
    even = random + random[mirror] * torch.tensor([-1.0, 1.0, 1.0])
    scene = replace(toy_scene(3), offsets=even)
    assert float(offset_symmetry(model, 1.0)(scene)) == pytest.approx(0, abs=1e-10)
    assert float(symmetry(random, mirror)) > 1
    hidden = torch.zeros(961)
    assert float(symmetry(random, mirror, hidden)) == 0
    constant = replace(scene, offsets=torch.tensor([1.0, 2.0, 2.0]).expand(961, 3))
    assert float(smooth_shape(model)(constant)) == 0
    assert float(smooth_shape(model, of="vertices")(constant)) > 0
    assert float(offset_magnitude(1.0)(constant)) == pytest.approx(9)
    assert float(magnitude(random)) == pytest.approx(float((random**2).sum() / 961))
    with pytest.raises(ValueError, match="no offsets"):
        smooth_shape(model)(toy_scene(3))


def test_a_uv_map_is_symmetric_with_its_mirror_image() -> None:
    texture = torch.rand(6, 8, 3, generator=generator(7))
    assert float(uv_symmetry(texture + texture.flip(1))) == 0
    signs = (-1.0, 1.0, 1.0)
    normals = texture + texture.flip(1) * torch.tensor(signs)
    assert float(uv_symmetry(normals, signs=signs)) == pytest.approx(0, abs=1e-6)
    assert float(uv_symmetry(normals)) > 0
    mask = torch.zeros(6, 8)
    mask[2, 3] = 1
    expected = float((texture[2, 3] - texture[2, 4]).abs().sum())
    assert float(uv_symmetry(texture, mask)) == pytest.approx(expected)


def test_albedo_of_the_mean_is_as_smooth_as_the_mean() -> None:
    model, scene = toy_model(), toy_scene(3)
    flat = replace(scene, albedo=torch.zeros_like(scene.albedo))
    edges = torch.from_numpy(unique_edges(model.topology.triangles))
    assert float(smooth_albedo(model, 1.0)(flat)) == pytest.approx(
        float(smoothness(model.albedo_mean, edges))
    )


def test_one_person_has_one_shape() -> None:
    """Two photographs of one person are explained as well by each other's identity; of two persons, worse."""
    model, first = toy_model(), toy_scene(3)
    again = replace(toy_scene(8, yaw=-20.0), identity=first.identity)
    other = toy_scene(8, yaw=-20.0)

    def cost(scenes: list[Scene]) -> float:
        losses = [landmark_loss(observe(scene), model) for scene in scenes]
        return float(shape_consistency([loss for loss in losses if loss is not None], scenes))

    assert cost([first, again]) < 1e-5 < 1e-2 < cost([first, other])
    with pytest.raises(ValueError, match="at least two"):
        shape_consistency([], [])


def test_fans_base_loss_descends(network: nn.Module) -> None:
    """Equation 7: pixels, landmarks, and twenty times recognition, from the mean face."""
    crop, truth = view(5)
    landmarks = landmark_loss(observe(truth), toy_model())
    assert landmarks is not None
    recognition = Recognition(Features(network.float(), 32), "l1")
    losses: list[Term] = [crop.term(masked_l2), landmarks, crop.term(recognition, 20.0)]
    start = replace(truth, identity=torch.zeros(6), expression=torch.zeros(5), albedo=torch.zeros(4))
    free = ("identity", "expression", "albedo", "rotation")
    scene, report = Adam(40).solve(losses, start, free)
    assert set(report.cost_after) == {"masked_l2", "landmark l1", "recognition"}
    assert sum(report.cost_after.values()) < 0.5 * sum(report.cost_before.values())
    assert all(parameter.grad is None for parameter in network.parameters())
    before = np.linalg.norm(landmarks_of(start) - landmarks_of(truth), axis=1).mean()
    assert np.linalg.norm(landmarks_of(scene) - landmarks_of(truth), axis=1).mean() < 0.6 * before
