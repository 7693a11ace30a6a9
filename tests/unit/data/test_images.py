from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobilesam_core.config.data import DataConfig, ImagesConfig
from mobilesam_core.config.prompts import PromptConfig
from mobilesam_core.data.build import build_source
from mobilesam_core.data.training_set import TrainingSet, collate
from mobilesam_core.errors import DataError

CONFIG = ImagesConfig(format="images", images="photos")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for name, shape in (("b.png", (40, 60)), ("a.png", (60, 30)), ("more/c.png", (50, 50)), (".hidden/d.png", (9, 9))):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((*shape, 3), 90, np.uint8)).save(path)
    (folder / "notes.txt").write_text("no image")
    return folder


def test_images_of_a_folder_and_below(photos: Path) -> None:
    source = build_source(CONFIG, photos.parent)
    assert [source[i].key for i in range(len(source))] == ["a.png", "b.png", "more/c.png"]
    assert source.describe(1) == source[1].source == str(photos / "b.png")
    assert len(source[0].masks) == 0 and source[0].masks.shape == (60, 30)
    assert build_source(CONFIG, photos.parent, channels=1)[0].image.shape == (60, 30)


def test_without_labels_prompts_are_points_anywhere_and_targets_empty(photos: Path) -> None:
    data = DataConfig(train=CONFIG, max_objects=5, augment={"crop": 24, "scale": (0.5, 2.0), "transpose": 0.5})
    dataset = TrainingSet(build_source(CONFIG, photos.parent), data, PromptConfig(), 64, 16, seed=3)
    points = set()
    for epoch in range(4):
        items = [dataset[epoch, i] for i in range(3)]
        for item in items:
            height, width = item.image.shape[1:]
            assert max(height, width) <= 64
            for prompt in item.prompts:
                (x, y) = prompt.points[0]
                assert prompt.box is None and prompt.labels.tolist() == [1] and 0 <= x < width and 0 <= y < height
                points.add((x, y))
        batch = collate(items)
        assert len(batch.prompts) == 15 and batch.targets.shape == (15, 16, 16) and batch.targets.max() == 0
    assert len(points) > 30


def test_a_folder_without_images_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        build_source(CONFIG, tmp_path)
    (tmp_path / "photos").mkdir()
    with pytest.raises(DataError, match="holds no image"):
        build_source(CONFIG, tmp_path)
