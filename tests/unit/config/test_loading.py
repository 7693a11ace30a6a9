from __future__ import annotations

from pathlib import Path

import pytest

from mobilesam_core.config.loading import (
    apply_overrides,
    changed_keys,
    dump_yaml,
    load_amg_config,
    load_train_config,
    packaged_configs,
    parse_yaml,
)
from mobilesam_core.errors import ConfigError

REPOSITORY = Path(__file__).parents[3]
DATA = "data: {train: {format: shapes}}\n"
MINIMAL = f"model: {{name: vit_nano, checkpoint: null}}\n{DATA}"

ALL_FROZEN = "train: {freeze: {image_encoder: yes, prompt_encoder: yes, mask_decoder: yes}}\n"


def write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return str(path)


def test_a_config_survives_being_written_and_read_back(tmp_path: Path) -> None:
    config = load_train_config(write(tmp_path, MINIMAL), ["optim.betas=[0.8, 0.99]", "train.output_dir=x/y"])
    assert load_train_config(write(tmp_path, dump_yaml(config))) == config


def test_every_shipped_config_is_valid() -> None:
    files = sorted((REPOSITORY / "examples" / "configs").rglob("*.yaml"))
    assert files, "the examples are gone"
    for name in [*map(str, files), *packaged_configs()]:
        load_train_config(name)


def test_every_example_names_its_command() -> None:
    for path in (REPOSITORY / "examples" / "configs").rglob("*.yaml"):
        text = path.read_text()
        assert text.startswith("# "), path
        assert f"mobilesam train {path.relative_to(REPOSITORY).as_posix()}" in text, path
        for part in ("# Needs: ", "# Run: ", "# Then: ", "# Expect: "):
            assert part in text, path
        assert "TODO" not in text, path


@pytest.mark.parametrize(
    ("model", "checkpoint"),
    [
        ("{name: vit_nano}", "nano"),
        ("{name: vit_nano, checkpoint: null}", None),
        ("{name: vit_nano, checkpoint: mine.pt}", "mine.pt"),
        ("{name: vit_t}", "official"),
        ("{}", "official"),
    ],
)
def test_vit_nano_starts_from_nano_unless_told_otherwise(tmp_path: Path, model: str, checkpoint: str | None) -> None:
    config = load_train_config(write(tmp_path, f"model: {model}\n{DATA}"))
    assert config.model.checkpoint == checkpoint
    assert load_train_config(write(tmp_path, dump_yaml(config))) == config
    assert type(config).model_validate_json(config.model_dump_json()) == config


def test_nano_is_no_start_for_other_models(tmp_path: Path) -> None:
    assert load_train_config(write(tmp_path, DATA), ["model.name=vit_nano"]).model.checkpoint == "nano"
    with pytest.raises(ConfigError, match="'nano' holds weights of vit_nano, not of vit_t"):
        load_train_config(write(tmp_path, DATA), ["model.checkpoint=nano"])


def test_scientific_notation_is_a_number(tmp_path: Path) -> None:
    assert parse_yaml("[1e-4, 3E5, -2e+3, 1.5e-1]", "here") == [1e-4, 3e5, -2e3, 0.15]
    assert load_train_config(write(tmp_path, MINIMAL), ["optim.lr=3e-5"]).optim.lr == 3e-5


def test_a_precision_needs_no_quotes(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("data: {train: {format: shapes}}\ntrain: {precision: 32}\n")
    assert load_train_config(str(tmp_path / "a.yaml")).train.precision == "32"
    assert load_train_config(str(tmp_path / "a.yaml"), ["train.precision=32"]).train.precision == "32"


def test_all_errors_come_at_once_with_their_paths(tmp_path: Path) -> None:
    text = """
model: {name: vit_x}
data:
  train: {format: folder, imagse: a, mask_mode: instances}
  augment: {scale: [2.0, 1.0]}
optim: {lr: "fast", batchsize: 3}
trian: {}
"""
    with pytest.raises(ConfigError) as caught:
        load_train_config(write(tmp_path, text))
    message = str(caught.value)
    for expected in (
        "8 problems",
        "model.name: ",
        "data.train.imagse: unknown key; did you mean 'images'?",
        "data.train.images: required, but not given",
        "data.train.masks: required, but not given",
        "data.augment.scale: the first value must not exceed the second",
        "optim.lr: input should be a valid number, not 'fast'",
        "optim.batchsize: unknown key; did you mean 'batch_size'?",
        "trian: unknown key; did you mean 'train'?",
    ):
        assert expected in message, message


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "holds no settings"),
        ("- a\n- b\n", "holds no settings"),
        ("model: {name: [", "is not valid YAML"),
        ("model: {}\nmodel: {}\n", "'model' is given twice"),
        (MINIMAL + "optim: {lr: .nan}\n", "optim.lr"),
        (MINIMAL + "optim: {batch_size: '4'}\n", "optim.batch_size: input should be a valid integer"),
        (MINIMAL + ALL_FROZEN, "nothing would learn"),
        (MINIMAL.replace("checkpoint: null", "image_size: 100"), "multiple of 64"),
        (MINIMAL.replace("data: {", "data: {tile: 32, "), "data: tile is 32 pixels, the least is 64"),
        (MINIMAL.replace("data: {", "data: {tile: 64, "), "overlap is 64 pixels, it must be from 0 to less"),
        (MINIMAL.replace("data: {", "data: {tile: 512, verify: false, "), "verify=false does not go with tile"),
        (MINIMAL.replace("checkpoint: null", "encoder: {depths: [1, 2]}"), "needs 4 values, not 2"),
    ],
)  # fmt: skip
def test_each_mistake_is_named(tmp_path: Path, text: str, part: str) -> None:
    with pytest.raises(ConfigError, match=r".") as caught:
        load_train_config(write(tmp_path, text))
    assert part in str(caught.value)


def test_a_missing_file_lists_the_packaged_names() -> None:
    with pytest.raises(ConfigError, match="quickstart"):
        load_train_config("no/such.yaml")


def test_overrides_reach_into_missing_sections_but_not_through_values() -> None:
    tree = {"optim": {"lr": 1.0}, "train": None}
    assert apply_overrides(tree, ["train.freeze.image_encoder=true", "optim.lr=null"]) == {
        "optim": {"lr": None},
        "train": {"freeze": {"image_encoder": True}},
    }
    assert tree == {"optim": {"lr": 1.0}, "train": None}
    with pytest.raises(ConfigError, match="is a value, not a section"):
        apply_overrides(tree, ["optim.lr.x=1"])
    with pytest.raises(ConfigError, match="has no value"):
        apply_overrides(tree, ["optim.lr"])
    with pytest.raises(ConfigError, match=r"'--amg-set optim\.lr' has no value"):
        apply_overrides(tree, ["optim.lr"], "--amg-set")


def test_settings_of_amg_come_from_a_file_and_changes_win(tmp_path: Path) -> None:
    path = write(tmp_path, "points_per_side: 16\nmin_area: 9\n")
    settings = load_amg_config(path, {"min_area": 4})
    assert (settings.points_per_side, settings.min_area, settings.box_nms_thresh) == (16, 4, 0.7)
    assert load_amg_config(write(tmp_path, ""), {}) == load_amg_config(None, {})
    with pytest.raises(ConfigError, match="holds no settings"):
        load_amg_config(write(tmp_path, "[1, 2]"), {})
    with pytest.raises(ConfigError, match=r"min_area: .* not -1"):
        load_amg_config(None, {"min_area": -1})
    with pytest.raises(ConfigError, match="tile and crop_n_layers both say where to crop"):
        load_amg_config(None, {"tile": 512, "crop_n_layers": 1})
    with pytest.raises(ConfigError, match=r"overlap is 512 pixels"):
        load_amg_config(None, {"tile": 512, "overlap": 512})


def test_changed_keys_give_path_and_both_values(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL)
    old, new = load_train_config(path), load_train_config(path, ["optim.lr=0.5", "data.train.seed=3"])
    assert changed_keys(old, old) == []
    assert changed_keys(old, new) == ["data.train.seed: 0 → 3", "optim.lr: 0.0001 → 0.5"]
