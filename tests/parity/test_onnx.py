"""Our official-style decoder against the one that mobile_sam itself exports: either can take the other's place."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from mobile_sam.utils.onnx import SamOnnxModel
from torch import Tensor

from mobilesam_core.checkpoints.loading import OpenedCheckpoint
from mobilesam_core.export.workflow import ExportOptions, export_onnx
from mobilesam_core.models.sam import Sam

Pair = tuple[Any, Sam]
INPUTS = ("image_embeddings", "point_coords", "point_labels", "mask_input", "has_mask_input", "orig_im_size")


@pytest.fixture(
    scope="module",
    params=[pytest.param(False, id="four masks"), pytest.param(True, id="single mask", marks=pytest.mark.slow)],
)
def sessions(
    request: pytest.FixtureRequest, vit_t: Pair, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ort.InferenceSession, ort.InferenceSession]:
    oracle, model = vit_t
    folder = tmp_path_factory.mktemp("onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the reference is traced
        torch.onnx.export(
            # In evaluation mode, since the exporter leaves what it exports in the mode it came in.
            SamOnnxModel(oracle, return_single_mask=request.param).eval(),
            tuple(_example(2, (800, 600), seed=0).values()),
            str(folder / "oracle.onnx"),
            dynamo=False,
            opset_version=17,
            input_names=list(INPUTS),
            output_names=["masks", "iou_predictions", "low_res_masks"],
            dynamic_axes={"point_coords": {1: "num_points"}, "point_labels": {1: "num_points"}},
        )
    (ours,) = export_onnx(
        OpenedCheckpoint(model, Path("pair.pt"), "0" * 64, {}),
        ExportOptions(folder, parts=("decoder",), single_mask=request.param),
    )
    assert ours.verification.passed
    return tuple(ort.InferenceSession(str(path)) for path in (folder / "oracle.onnx", ours.path))  # type: ignore[return-value]


def _example(points: int, size: tuple[int, int], seed: int, mask: bool = False) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    values = (
        torch.randn(1, 256, 64, 64, generator=generator),
        1024 * torch.rand(1, points, 2, generator=generator),
        torch.randint(-1, 4, (1, points), generator=generator).float(),
        3 * torch.randn(1, 1, 256, 256, generator=generator),
        torch.tensor([float(mask)]),
        torch.tensor(size, dtype=torch.float32),
    )
    return dict(zip(INPUTS, values, strict=True))


@pytest.mark.parametrize(
    ("points", "size", "mask"),
    [(1, (1024, 1024), False), (2, (600, 800), False), (3, (333, 1000), True), (7, (1200, 799), False)],
)
def test_same_inputs_give_same_outputs(
    sessions: tuple[ort.InferenceSession, ort.InferenceSession], points: int, size: tuple[int, int], mask: bool
) -> None:
    oracle, ours = sessions
    assert [each.name for each in ours.get_inputs()] == [each.name for each in oracle.get_inputs()] == list(INPUTS)
    assert [each.name for each in ours.get_outputs()] == [each.name for each in oracle.get_outputs()]
    inputs = {name: value.numpy() for name, value in _example(points, size, points, mask).items()}
    for found, expected in zip(ours.run(None, inputs), oracle.run(None, inputs), strict=True):
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
