"""The shipped configs on the real data they name."""

from __future__ import annotations

from pathlib import Path

import pytest

from mobilesam_core.config.data import ShapesConfig
from mobilesam_core.config.loading import load_train_config
from mobilesam_core.data.build import build_source

CONFIGS = sorted((Path(__file__).parents[2] / "examples/configs").glob("*_*_?pu.yaml"))


def test_every_set_has_a_config_for_a_laptop_and_one_for_a_gpu() -> None:
    names = {path.stem for path in CONFIGS}
    assert names == {f"{s}_{kind}" for s in ("nuclei", "coco", "leaf", "pothole") for kind in ("nano_cpu", "vit_t_gpu")}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_an_example_finds_its_data(path: Path, data_root: Path) -> None:
    config = load_train_config(str(path))
    assert config.data.root.parts[:3] == ("..", "shared", "data")
    assert config.data.val is not None and not isinstance(config.data.train, ShapesConfig)
    root = data_root.joinpath(*config.data.root.parts[3:])
    for data in (config.data.train, config.data.val):
        source = build_source(data, root)
        assert len(source) >= 8 and len(source[0].masks) >= 1
    nano = path.stem.endswith("nano_cpu")
    assert (config.model.name, config.model.checkpoint) == (("vit_nano", "nano") if nano else ("vit_t", "official"))
