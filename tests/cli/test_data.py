"""``mobilesam data``: faults planted in small sets, real sets without any, and the sheet of what training sees."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mobilesam_core.config.data import ShapesConfig
from mobilesam_core.config.loading import load_train_config
from mobilesam_core.data.convert import convert
from mobilesam_core.data.preview import GAP, TILE, first_views
from mobilesam_core.data.shapes import ShapesSource
from mobilesam_core.ops.boxes import mask_box

Run = Callable[..., Any]
CONFIG = """
model: {{name: vit_nano, checkpoint: null, image_size: 64}}
data:
  root: {root}
  train: {{format: folder, images: train/images, masks: train/masks, mask_mode: instances}}
  val: {{format: coco, images: val, annotations: val.json}}
  min_object_area: 2
"""
OF_VAL = ("--set", "data.train={format: coco, images: val, annotations: val.json}")
PREVIEW = ("--set", "data.augment={crop: 48, scale: [0.8, 1.5], horizontal_flip: 0.5}", "--count")
SQUARE = [4, 2, 30, 2, 30, 28, 4, 28]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def annotation(number: int, image: int, segmentation: Any, **more: Any) -> dict[str, Any]:
    return {"id": number, "image_id": image, "category_id": 1 + image % 2, "segmentation": segmentation, **more}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A folder of eight images with ids, and a COCO file of four, with nothing wrong."""
    train = ShapesSource(ShapesConfig(format="shapes", domains=("large",), count=8, size=64, seed=5))
    val = ShapesSource(ShapesConfig(format="shapes", domains=("large",), count=4, size=64, seed=6))
    for folder in ("train/images", "train/masks", "val"):
        (tmp_path / folder).mkdir(parents=True)
    for index in range(8):
        sample = train[index]
        ids = sum(
            (i + 1) * mask.astype(np.uint8) for i, mask in enumerate(sample.masks.dense(range(len(sample.masks))))
        )
        Image.fromarray(sample.image).save(tmp_path / f"train/images/{index}.png")
        Image.fromarray(ids).save(tmp_path / f"train/masks/{index}.png")
    for index in range(4):
        Image.fromarray(val[index].image).save(tmp_path / f"val/v{index}.png")
    write_coco(tmp_path, [annotation(index, index, [SQUARE]) for index in range(4)])
    path = tmp_path / "c.yaml"
    path.write_text(CONFIG.format(root=tmp_path))
    return path


def write_coco(root: Path, annotations: list[dict[str, Any]]) -> None:
    images = [{"id": i, "file_name": f"v{i}.png", "height": 64, "width": 64} for i in range(4)]
    categories = [{"id": 1, "name": "even"}, {"id": 2, "name": "odd"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "val.json").write_text(json.dumps(content))


def plant(root: Path) -> None:
    images, masks = root / "train/images", root / "train/masks"
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(masks / "0.png")  # marks nothing
    Image.fromarray(np.ones((63, 64), np.uint8)).save(masks / "1.png")  # another size
    truncate(images / "2.png")
    truncate(masks / "2.png")  # both of a pair
    Image.fromarray(np.ones((64, 64), np.uint8)).save(masks / "3.png")  # all ones
    (masks / "4.png").unlink()  # an image alone
    shutil.copy(masks / "5.png", masks / "other.png")  # a mask alone
    # In val too, of another name and other bytes, and one whose mask cannot be used.
    Image.open(images / "0.png").save(root / "val/v3.png", compress_level=0)
    shutil.copy(images / "5.png", images / "again.png")  # twice in train
    shutil.copy(masks / "5.png", masks / "again.png")
    specks = np.array(Image.open(masks / "6.png"))
    specks[0, 0] = 200
    Image.fromarray(specks).save(masks / "6.png")
    write_coco(
        root,
        [
            annotation(0, 0, [SQUARE]),
            annotation(1, 0, [SQUARE], bbox=[4, 2, 0, 26]),
            annotation(2, 1, [SQUARE]),
            annotation(3, 1, [[8, 8, 8.2, 8, 8.2, 8.2]]),  # no pixel
            annotation(4, 2, [[1, 2]]),
            annotation(5, 3, [SQUARE]),
            annotation(6, 77, [SQUARE]),
            {"id": 7, "image_id": 1},
        ],
    )


def test_every_planted_fault_is_found_by_one_run(run_cli: Run, config: Path) -> None:
    plant(config.parent)
    ran = run_cli("data", "check", config, "--json")
    assert ran.code == 1 and "10 error(s)" in ran.err
    found = ran.json["findings"]
    by_kind = {
        kind: [each for each in found if each["kind"] == kind] for kind in Counter(each["kind"] for each in found)
    }
    names = {kind: sorted(Path(each["source"]).name for each in each_kind) for kind, each_kind in by_kind.items()}
    assert names.pop("unpaired") == ["data.train", "data.train", "data.val"]
    assert names == {
        "unusable": ["2.png", "2.png"],
        "annotation": ["data.val", "v2.png"],
        "size": ["1.png"],
        "empty": ["0.png"],
        "in_both_sets": ["v3.png"],
        "duplicate": ["5.png"],
        "covers_all": ["3.png"],
        "no_area": ["v0.png", "v1.png"],
        "tiny": ["6.png"],
        "vanishing": ["data.train"],
    }
    said = {kind: " ".join(each["problem"] for each in each_kind) for kind, each_kind in by_kind.items()}
    for kind, words in {
        "unpaired": ("images/4.png has no mask", "masks/other.png has no image", "annotation 6 refers to image 77"),
        "unusable": ("images/2.png cannot be read", "masks/2.png cannot be read"),
        "annotation": ("annotations[7] has no `category_id`", "annotation 4 has a polygon"),
        "in_both_sets": ("v3.png of val: the same picture as", "images/0.png of train"),
        "duplicate": ("5.png and", "again.png"),
        "no_area": ("annotation 1 has a bbox without area", "annotation 3 covers no pixel"),
    }.items():
        assert all(word in said[kind] for word in words), said[kind]
    severities = {kind: {each["severity"] for each in each_kind} for kind, each_kind in by_kind.items()}
    assert {kind for kind, severity in severities.items() if severity == {"warning"}} == {
        "duplicate", "covers_all", "no_area", "tiny", "vanishing"
    }  # fmt: skip
    assert (ran.json["errors"], ran.json["warnings"], ran.json["passed"]) == (10, 6, False)
    assert all(each["remedy"] and each["problem"].endswith(".") for each in found)


def test_the_table_names_the_same_and_the_worst_are_drawn(run_cli: Run, config: Path, tmp_path: Path) -> None:
    plant(tmp_path)
    ran = run_cli("data", "check", config, "--pictures", tmp_path / "drawn")
    assert ran.code == 1
    listed = run_cli("data", "check", config, "--json").json["findings"]
    assert all(each["problem"] in ran.out for each in listed)
    assert "Error image without mask, or mask without image (3):" in ran.out
    assert "10 errors, 6 warnings" in ran.out
    names = {path.name for path in (tmp_path / "drawn").iterdir()}
    assert names == {
        "annotation_01.png", "covers_all_01.png", "duplicate_01.png", "empty_01.png", "in_both_sets_01.png",
        "no_area_01.png", "no_area_02.png", "size_01.png", "tiny_01.png"
    }  # fmt: skip
    single, pair = (np.asarray(Image.open(tmp_path / f"drawn/{kind}_01.png")) for kind in ("size", "in_both_sets"))
    assert single.shape == (384, 384, 3) and pair.shape == (384, 772, 3)
    ran = run_cli("data", "check", config, "--pictures", tmp_path / "drawn")
    assert ran.code == 2 and "not an empty folder" in ran.err


def test_nothing_wrong(run_cli: Run, config: Path) -> None:
    ran = run_cli("data", "check", config, "--json")
    assert (ran.code, ran.json["findings"], ran.json["passed"]) == (0, [], True), ran.out
    train, val = (ran.json["sets"][name] for name in ("train", "val"))
    assert (train["images"], train["classes"], val["images"], val["objects"]) == (8, None, 4, 4)
    assert val["sides"]["50%"] == 26 and val["histogram"]["16-32"] == 4
    assert val["classes"] == [
        {"id": 1, "name": "even", "objects": 2, "images": 2},
        {"id": 2, "name": "odd", "objects": 2, "images": 2},
    ]
    assert ran.json["image_size"] == 64 and list(val["vanishing"]) == ["32", "64", "128"]


def test_a_set_that_fails_as_a_whole_does_not_end_the_check(run_cli: Run, config: Path) -> None:
    truncate(config.parent / "val.json")
    truncate(config.parent / "train/images/3.png")
    ran = run_cli("data", "check", config, "--json")
    assert ran.code == 1 and list(ran.json["sets"]) == ["train"]
    assert [(each["kind"], *each["sets"]) for each in ran.json["findings"]] == [("set", "val"), ("unusable", "train")]
    assert "val.json is not JSON" in ran.json["findings"][0]["problem"]
    ran = run_cli("data", "check", config, "--set", "data.train.masks=nowhere", "--set", "data.val=null")
    assert ran.code == 1 and "nowhere does not exist" in ran.out and "1 errors" in ran.out


@pytest.fixture
def mixed(config: Path) -> dict[str, str]:
    """Sets of four images in three formats, one file of each broken: what a config says of them, by format."""
    root = config.parent
    for seed, name in enumerate(("labelme", "yolo", "sa1b")):
        drawn = ShapesConfig(format="shapes", domains=("large",), count=4, size=64, seed=seed)
        convert(drawn, root, name, root / name)
    truncate(sorted(root.glob("labelme/images/*.json"))[1])
    with sorted(root.glob("yolo/labels/*.txt"))[1].open("a") as file:
        file.write("0 0.1 0.1 1.5 0.1 0.5 0.6\n")
    truncate(sorted(root.glob("sa1b/images/*.json"))[1])
    return {
        "labelme": "{format: labelme, annotations: labelme/images}",
        "yolo": "{format: yolo, images: yolo/images, labels: yolo/labels}",
        "sa1b": "{format: sa1b, images: sa1b/images}",
    }


@pytest.mark.parametrize(
    ("name", "kind", "problem"),
    [
        ("labelme", "unusable", ".json is not JSON"),
        ("yolo", "annotation", "has the coordinate 1.5; they are shares"),
        ("sa1b", "unusable", ".json is not JSON"),
    ],
)
def test_a_broken_file_beside_good_ones(
    run_cli: Run, config: Path, mixed: dict[str, str], name: str, kind: str, problem: str
) -> None:
    ran = run_cli("data", "check", config, "--set", f"data.train={mixed[name]}", "--json")
    found = [each for each in ran.json["findings"] if each["severity"] == "error"]
    assert ran.code == 1 and [each["kind"] for each in found] == [kind], ran.out
    assert problem in found[0]["problem"] and f"{name}/" in found[0]["problem"]
    train = ran.json["sets"]["train"]
    assert (train["images"], train["unannotated"]) == (3, 0)
    assert (train["classes"] is None) == (name == "sa1b")


def test_each_file_of_a_mix_is_checked_once(run_cli: Run, config: Path, mixed: dict[str, str]) -> None:
    nowhere = "{format: yolo, images: nowhere, labels: yolo/labels}"
    weighted = [f"{{weight: {2 * place + 1}, set: {each}}}" for place, each in enumerate((*mixed.values(), nowhere))]
    train = f"data.train={{format: mix, sets: [{', '.join(weighted)}]}}"
    ran = run_cli("data", "check", config, "--set", train, "--json", "--pictures", config.parent / "drawn")
    found = Counter(each["kind"] for each in ran.json["findings"])
    assert ran.code == 1 and found == {"set": 1, "unusable": 2, "annotation": 1}, ran.out
    assert ran.json["sets"]["train"]["images"] == 9 and ran.json["sets"]["train"]["classes"] is None
    assert {path.name for path in (config.parent / "drawn").iterdir()} == {"unusable_01.png", "annotation_01.png"}


def test_image_size_and_crop_decide_what_vanishes(run_cli: Run, config: Path) -> None:
    check = ("data", "check", config, *OF_VAL, "--set", "data.val=null", "--set", "data.min_object_area=400", "--json")
    whole = run_cli(*check)
    assert whole.json["sets"]["train"]["vanishing"] == {"32": 4, "64": 0, "128": 0} and whole.code == 0
    half = run_cli(*check, "--set", "data.min_object_area=1000")
    assert half.json["sets"]["train"]["vanishing"] == {"32": 4, "64": 4, "128": 0} and half.code == 1
    kinds = Counter(each["kind"] for each in half.json["findings"])
    assert kinds == {"too_small": 4, "vanishing": 1}
    assert "4 of 4 objects" in half.json["findings"][-1]["problem"]
    cropped = run_cli(*check, "--set", "data.min_object_area=1000", "--set", "data.augment.crop=32")
    assert cropped.json["sets"]["train"]["vanishing"] == {"32": 4, "64": 0, "128": 0} and cropped.code == 0


def test_drawn_shapes_and_images_without_labels(run_cli: Run, config: Path) -> None:
    drawn = "{format: shapes, count: 4, size: 64, domains: [large]}"
    ran = run_cli("data", "check", config, "--set", f"data.train={drawn}", "--set", f"data.val={drawn}", "--json")
    assert ran.code == 1 and Counter(each["kind"] for each in ran.json["findings"])["in_both_sets"] == 4
    unlabelled = (
        "--set",
        "data.train={format: images, images: train}",
        "--set",
        "distill={teachers: [{checkpoint: nano, features: [{loss: cosine}]}], ground_truth: 0}",
    )
    ran = run_cli("data", "check", config, *unlabelled, "--json")
    assert ran.json["sets"]["train"] | {"images": 16, "objects": 0, "sides": {}} == ran.json["sets"]["train"], ran.err


@pytest.mark.parametrize(
    ("folder", "example", "images", "warned"),
    [
        ("nuclei", "nuclei_nano_cpu", 150, set()),
        ("coco", "coco_nano_cpu", 54, {"tiny"}),
        ("binary/leaf", "leaf_nano_cpu", 28, set()),
        ("binary/pothole", "pothole_nano_cpu", 32, set()),
    ],
)
def test_real_sets_have_no_error(
    run_cli: Run, data_root: Path, folder: str, example: str, images: int, warned: set[str]
) -> None:
    config = Path(__file__).parents[2] / f"examples/configs/{example}.yaml"
    ran = run_cli("data", "check", config, "--set", f"data.root={data_root / folder}", "--json")
    assert ran.code == 0 and ran.json["errors"] == 0, ran.out
    assert sum(each["images"] for each in ran.json["sets"].values()) == images
    assert {each["kind"] for each in ran.json["findings"]} == warned


def test_the_sheet_is_a_function_of_the_seed(run_cli: Run, config: Path, tmp_path: Path) -> None:
    sheets = {}
    for name, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        ran = run_cli("data", "preview", config, *PREVIEW, 5, "--seed", seed, "--out", tmp_path / f"{name}.png")
        assert ran.code == 0 and "5 views with" in ran.out, ran.err
        sheets[name] = np.asarray(Image.open(tmp_path / f"{name}.png"))
    assert sheets["a"].shape == (2 * (TILE + GAP) + GAP, 3 * (TILE + GAP) + GAP, 3)
    assert np.array_equal(sheets["a"], sheets["b"]) and not np.array_equal(sheets["a"], sheets["c"])
    assert (sheets["a"][-TILE:, -TILE:] == 255).all()  # the sixth place is free


@pytest.mark.parametrize("kept", ["null", "1"])
def test_views_are_those_of_training_with_prompts_in_their_masks(config: Path, kept: str) -> None:
    from mobilesam_core.data.build import build_source
    from mobilesam_core.data.loader import build_loader
    from mobilesam_core.data.training_set import TrainingSet

    overrides = ["prompts.box_noise=0", "train.freeze.image_encoder=true", f"train.cache.views={kept}"]
    settings = load_train_config(str(config), [PREVIEW[1], *overrides])
    views = list(first_views(settings, 10))  # into the second epoch
    data = settings.data
    source = build_source(data.train, data.root)
    trained = TrainingSet(source, data, settings.prompts, 64, 16, settings.train.seed, views=settings.views)
    batches = list(build_loader(trained, 1, 0, settings.train.seed)) + list(
        build_loader(trained, 1, 0, settings.train.seed, 1)
    )
    assert [batch.sources[0] for batch in batches[:10]] == [view.source for view in views]
    boxes = points = 0
    for view, batch in zip(views, batches, strict=False):
        height, width = view.size
        assert np.array_equal(batch.images[0, :, :height, :width], view.image)
        for prompt, target in zip(view.prompts, view.targets, strict=True):
            mask = target.numpy() > 0.5
            for x, y in prompt.points.astype(int):
                assert mask[y, x]
                points += 1
            if prompt.box is not None:
                assert np.array_equal(prompt.box, mask_box(mask))
                boxes += 1
    assert boxes and points


def test_what_is_drawn_is_where_it_should_be(run_cli: Run, config: Path, tmp_path: Path) -> None:
    boxes = ("--set", "prompts.point=0", "--set", "prompts.box_noise=0", "--count", 1)
    ran = run_cli("data", "preview", config, *OF_VAL, *boxes, "--out", tmp_path / "s.png")
    assert ran.code == 0, ran.err
    tile = np.asarray(Image.open(tmp_path / "s.png"))[GAP:-GAP, GAP:-GAP].astype(int)
    magnified = TILE // 64
    blue = (tile[..., 2] > 200) & (tile[..., 0] < 80)
    rows, columns = np.flatnonzero(blue.any(axis=1)), np.flatnonzero(blue.any(axis=0))
    for found, edges in ((rows, (2, 28)), (columns, (4, 30))):
        assert abs(found[0] - edges[0] * magnified) <= 2 and abs(found[-1] - edges[1] * magnified) <= 2


def test_sheets_that_cannot_be(run_cli: Run, config: Path, tmp_path: Path) -> None:
    out = tmp_path / "sheet.png"
    out.write_bytes(b"mine")
    ran = run_cli("data", "preview", config, "--count", 1, "--out", out)
    assert ran.code == 2 and "is there already" in ran.err and out.read_bytes() == b"mine"
    assert run_cli("data", "preview", config, "--count", 1, "--out", out, "--overwrite").code == 0
    assert np.asarray(Image.open(out)).shape == (TILE + 2 * GAP, TILE + 2 * GAP, 3)
    ran = run_cli("data", "preview", config, "--out", tmp_path / "sheet.jpg")
    assert ran.code == 2 and "End it in .png" in ran.err
    for path in (tmp_path / "train/images").iterdir():
        truncate(path)
    new = ("data", "preview", config, "--count", 2, "--out", tmp_path / "new.png")
    ran = run_cli(*new)
    assert ran.code == 1 and "cannot be read" in ran.err
    ran = run_cli(*new, "--set", "data.on_bad_file=skip")
    assert ran.code == 1 and "No image of data.train can be used" in ran.err and not (tmp_path / "new.png").exists()


def test_a_bad_file_is_passed_over_where_the_config_says_so(run_cli: Run, config: Path, tmp_path: Path) -> None:
    truncate(tmp_path / "train/images/2.png")
    out = ("--count", 8, "--out", tmp_path / "sheet.png")
    ran = run_cli("data", "preview", config, *out, "--set", "data.on_bad_file=skip")
    assert ran.code == 0 and "Warning:" in ran.err and "2.png cannot be read" in ran.err and "8 views" in ran.out
