"""The report: one file, no request, no text that becomes markup, and a head that is the fitted one."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from export_toy import toy_result
from PIL import Image

from facefit.errors import UnreadableInput
from facefit.fitting.result import FitResult, Status
from facefit.mesh import split_seams, vertex_normals
from facefit.models.camera import Pose
from facefit.models.lighting import Lighting
from facefit.report import report, report_html, typeset, verdict
from facefit.report_numbers import turned_in_words
from facefit.report_pictures import head_views, light_ball
from facefit.report_scene import viewer_scene
from facefit.texture import Texture, bake_texture

NASTY = '</script><script>alert(1)</script><img src=x onerror="alert(2)">&.jpg'


class Page(HTMLParser):
    """Tags with their attributes, and the text of the script elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.open = tag
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.open == "script":
            self.scripts[-1] += data

    def handle_endtag(self, tag: str) -> None:
        self.open = ""


@pytest.fixture(scope="module")
def result() -> FitResult:
    return toy_result()


@pytest.fixture(scope="module")
def texture(result: FitResult) -> Texture:
    return bake_texture(result, 32)


@pytest.fixture(scope="module")
def html(result: FitResult, texture: Texture) -> str:
    return report_html(result, texture)


def test_nothing_is_fetched(html: str) -> None:
    page = Page(html)
    for tag, attributes in page.tags:
        for name in ("src", "href", "srcset", "poster", "data", "action"):
            if name in attributes:
                assert str(attributes[name]).startswith("data:"), (tag, attributes[name])
    assert not re.search(r"url\((?!data:)|@import|\bfetch\(|XMLHttpRequest|import\(", html)
    policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and "default-src 'none'" in policy


def test_every_placeholder_is_filled(html: str) -> None:
    without_scripts = re.sub(r"<script.*?</script>", "", html, flags=re.S)
    assert not re.findall(r"\$[a-z]+", without_scripts)


def test_file_names_and_warnings_stay_text(result: FitResult, texture: Texture) -> None:
    observation = replace(result.observation, path=Path("x") / NASTY.replace("/", "\\"))
    nasty = replace(result, observation=observation, warnings=(NASTY,))
    plain, attacked = Page(report_html(result, texture)), Page(report_html(nasty, texture))
    assert [tag for tag, _ in attacked.tags] == [tag for tag, _ in plain.tags]
    assert not any("onerror" in attributes for _, attributes in attacked.tags)


def test_names_of_a_model_file_stay_text(result: FitResult, texture: Texture) -> None:
    source = replace(result.model.source, name=NASTY, licence=NASTY, citation=NASTY)
    model = replace(result.model, source=source, expression_names=(NASTY, "a", "b", "c"))
    attacked = Page(report_html(replace(result, model=model), texture))
    plain = Page(report_html(result, texture))
    assert [tag for tag, _ in attacked.tags] == [tag for tag, _ in plain.tags]


def test_the_folder_of_the_photograph_is_not_told(html: str) -> None:
    assert "somewhere" not in html and "toy.jpg" in html


def test_figures_that_do_not_apply_are_dashes(result: FitResult, texture: Texture) -> None:
    nan = float("nan")
    unknown = replace(
        result, landmark_error=nan, photometric_rms=nan, photometric_rms_start=nan, pixels_used=nan
    )
    html = report_html(unknown, texture)
    assert "nan" not in re.sub(r"<script.*?</script>|data:[^\"]*", "", html, flags=re.S).lower()


def decoded(directory: dict[str, Any], block: bytes, entry: list[Any]) -> np.ndarray:
    kind, offset, length = entry
    assert offset % 4 == 0
    return np.frombuffer(block, np.dtype(kind).newbyteorder("<"), length, offset)


def test_the_viewers_head_is_the_fitted_one(result: FitResult, texture: Texture) -> None:
    directory, block = viewer_scene(result, texture)
    directory = json.loads(json.dumps(directory, allow_nan=False))
    packed = decoded(directory, block, directory["vertices"]["data"]).reshape(-1, 3)
    shape = packed * directory["vertices"]["step"] + directory["vertices"]["low"]
    np.testing.assert_allclose(shape, result.scene.neutral_shape(result.model).numpy(), atol=0.01)
    for target in directory["targets"]:
        rows = decoded(directory, block, target["rows"])
        values = decoded(directory, block, target["values"]).reshape(-1, 3)
        shape[rows] += target["fitted"] * target["scale"] * values
    np.testing.assert_allclose(shape, result.scene.shape(result.model).numpy(), atol=0.05)
    split = split_seams(result.model.topology.triangles, texture.uv_triangles)
    np.testing.assert_array_equal(
        decoded(directory, block, directory["triangles"]).reshape(-1, 3), split.triangles
    )


def test_the_viewer_opens_on_the_head_as_the_photograph_sees_it_in_the_photographs_light(
    result: FitResult, texture: Texture
) -> None:
    directory, _ = viewer_scene(result, texture)
    scene, model = result.scene, result.model
    # WebGL looks along -z with y up: to the photograph's right, up, and toward the camera.
    turned = scene.shape(model).numpy() @ np.array(directory["rotation"]).T
    photographed = (scene.pose.apply(scene.shape(model)) - scene.pose.translation_mm).numpy()
    np.testing.assert_allclose(turned, photographed * [1, -1, -1], atol=0.01)
    np.testing.assert_allclose(directory["light"], scene.lighting.coefficients, atol=1e-5)
    face = model.topology.regions["face"]
    arriving = scene.lighting.irradiance(vertex_normals(scene.shape(model), model.triangles)[face])
    assert directory["exposure"] == pytest.approx(float(arriving.mean()), rel=1e-4)
    assert directory["exposure"] < directory["ceiling"] <= float(arriving.max()) + 1e-4


def test_the_page_carries_the_viewers_data(html: str) -> None:
    data = json.loads(next(s for s in Page(html).scripts if s.startswith("{")))
    block = base64.b64decode(data["block"])
    last = data["scene"]["targets"][-1]["values"]
    assert len(block) >= last[1] + 2 * last[2]
    assert data["skin"].startswith("data:image/jpeg;base64,")


@pytest.mark.slow
def test_the_report_is_written_whole_or_not_at_all(result: FitResult, tmp_path: Path) -> None:
    report(result, tmp_path / "face.html")
    assert (tmp_path / "face.html").read_text("utf-8").startswith("<!DOCTYPE html>")
    with pytest.raises(UnreadableInput):
        report(result, tmp_path / "nowhere" / "face.html")


def test_readers_without_webgl_see_the_head_in_four_views(result: FitResult, texture: Texture) -> None:
    views = head_views(result, texture, size=80)
    assert views.shape == (160, 160, 3)
    quarters = [views[:80, :80], views[:80, 80:], views[80:, :80], views[80:, 80:]]
    for quarter in quarters:
        covered = (quarter != quarter[0, 0]).any(2)
        assert 0.1 < covered.mean() < 0.8
    assert not np.array_equal(quarters[0], quarters[1])


def test_the_grade_and_an_unusual_end_are_on_top(result: FitResult, texture: Texture) -> None:
    top = report_html(result, texture).split("<main>")[0]
    assert f'class="grade {result.verdict.grade}"' in top and Status.CONVERGED.value not in top
    lost = replace(result, stages=(replace(result.stages[-1], status=Status.NOT_FINITE),))
    assert 'class="grade poor"' in report_html(lost, texture) and "infinite or NaN" in verdict(lost)


def test_sentences_of_a_terminal_are_set_as_on_a_page() -> None:
    assert typeset("off by +-2.1 mm, 5 % of 40 px") == "off by ±2.1\xa0mm, 5\xa0% of 40\xa0px"


@pytest.mark.parametrize("turn", [0.0, 2.0])
def test_the_ball_is_bright_where_the_lamp_stands_in_the_photograph(turn: float) -> None:
    """A lamp at the right edge of the picture, whichever way the head is turned."""
    pose = Pose(torch.tensor([0.0, turn, 0.0]), torch.zeros(3))
    lamp = torch.tensor([1.0, 0.0, 0.0]) @ pose.camera_from_model
    shown = light_ball(Lighting.directional(lamp), pose.camera_from_model)
    (data,) = re.findall(r"base64,([^\"]+)", shown)
    ball = np.asarray(Image.open(BytesIO(base64.b64decode(data))).convert("RGBA")).astype(float)
    light = ball[..., :3].sum(2) * (ball[..., 3] > 200)
    half = light.shape[1] // 2
    assert light[:, half:].sum() > 1.3 * light[:, :half].sum()
    assert light[:half].sum() == pytest.approx(light[half:].sum(), rel=0.02)


def test_where_a_head_looks_is_said_without_signs() -> None:
    assert turned_in_words(-16.5, -2.6) == "16° right, 3° down"
    assert turned_in_words(4.0, 26.2) == "4° left, 26° up"
    assert turned_in_words(0.3, -0.4) == "0°"
