"""Learning from teachers: what each loss moves, stores and live teachers alike, stages, and what is refused."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from mobilesam_core.checkpoints.loading import open_checkpoint
from mobilesam_core.checkpoints.weights import save_weights
from mobilesam_core.config.distill import DistillConfig
from mobilesam_core.config.loss import LossConfig
from mobilesam_core.config.model import ModelConfig
from mobilesam_core.config.train import TrainConfig
from mobilesam_core.data.batch import Batch
from mobilesam_core.distillation.extraction import extract_for_training
from mobilesam_core.distillation.teacher import Teacher
from mobilesam_core.errors import ConfigError, DataError, Interrupted, UsageError
from mobilesam_core.losses.total import SegLoss
from mobilesam_core.models.registry import build_sam
from mobilesam_core.models.sam import Sam, batch_prompts
from mobilesam_core.progress import NullReporter
from mobilesam_core.prompts.types import ABSENT
from mobilesam_core.training.clicks import corrected
from mobilesam_core.training.distilling import DistillingStep
from mobilesam_core.training.workflow import train

from .conftest import MakeConfig
from .test_training import interrupt_after, lines

CPU = torch.device("cpu")
NANO = '{"checkpoint": "nano"'
FEATURES = (
    '"image_size": 64, "features": [{"loss": "mse"}, {"teacher": "stages.2", "student": "stages.1", "resize": true}]'
)
TERMS: dict[str, dict[str, Any]] = {
    "features": {"teachers": [{"checkpoint": "nano", "features": [{}]}]},
    "inner features": {
        "teachers": [
            {
                "checkpoint": "nano",
                "features": [{"teacher": "stages.3", "student": "stages.1", "loss": "cosine", "resize": True}],
            }
        ]
    },
    "masks": {"teachers": [{"checkpoint": "nano"}], "masks": {}},
    "masks in rounds": {"teachers": [{"checkpoint": "nano"}], "masks": {"loss": "focal_dice", "rounds": 2}},
    "tokens": {"teachers": [{"checkpoint": "nano"}], "tokens": {"temperature": 2.0}},
    "prompt_embeddings": {"teachers": [{"checkpoint": "nano"}], "prompt_embeddings": {"cosine": 0.5}},
}


def seeded(seed: int) -> Sam:
    torch.manual_seed(seed)
    return build_sam(ModelConfig(name="vit_nano", checkpoint=None, image_size=64)).eval()


def distilling(student: Sam, teacher: Sam, **config: Any) -> DistillingStep:
    settings = DistillConfig(ground_truth=0.0, **config)
    teachers = [Teacher(each, teacher, "0" * 64) for each in settings.teachers]
    return DistillingStep(student, SegLoss(LossConfig()), settings, teachers)


@pytest.fixture
def batch() -> Batch:
    generator = torch.Generator().manual_seed(5)
    boxes = torch.tensor([[4.0, 6.0, 40.0, 44.0], [10.0, 2.0, 30.0, 20.0], [0.0, 0.0, 60.0, 30.0]])
    return Batch(
        images=torch.randint(0, 256, (2, 3, 64, 64), generator=generator, dtype=torch.uint8),
        sizes=torch.tensor([[64, 64], [48, 64]]),
        image_index=torch.tensor([0, 0, 1]),
        counts=[2, 1],
        prompts=batch_prompts(None, None, boxes, None, CPU),
        targets=(torch.rand(3, 16, 16, generator=generator) > 0.7).float(),
        sources=["a", "b"],
    )


@pytest.mark.parametrize("name", TERMS)
def test_the_student_learns_and_the_teacher_does_not(name: str, batch: Batch) -> None:
    student, teacher = seeded(0), seeded(1)
    if name == "prompt_embeddings":
        student.prompt_encoder.pe_layer.load_state_dict(teacher.prompt_encoder.pe_layer.state_dict())
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    losses = distilling(student.train(), teacher, **TERMS[name])(batch)
    losses["total"].backward()
    # Embeddings of prompts do not come from the image.
    part = student.prompt_encoder if name == "prompt_embeddings" else student.image_encoder
    learning = [p for p in part.parameters() if p.grad is not None and p.grad.abs().sum() > 0]
    assert len(learning) >= (2 if name == "prompt_embeddings" else 10)
    assert all(torch.isfinite(p.grad).all() for p in learning if p.grad is not None)
    assert all(p.grad is None for p in teacher.parameters())
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())
    assert losses["total"] > 0 and {key for key in losses if key.startswith("teacher_")}


@pytest.mark.parametrize("name", [name for name in TERMS if name != "inner features"])
def test_nothing_is_left_to_learn_from_an_equal(name: str, batch: Batch) -> None:
    teacher = seeded(1)
    losses = distilling(copy.deepcopy(teacher), teacher, **TERMS[name])(batch)
    assert losses["total"].item() == pytest.approx(0, abs=2e-6)


def test_rounds_ask_where_the_two_disagree(batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    student, teacher = seeded(0), open_checkpoint("nano", image_size=64).model
    asked: list[tuple[Any, Tensor, Tensor]] = []
    step = distilling(student, teacher, teachers=[{"checkpoint": "nano"}], masks={"rounds": 2})
    decode = Sam.decode

    def remember(self: Sam, embeddings: Tensor, image_index: Tensor, prompts: Any) -> Any:
        result = decode(self, embeddings, image_index, prompts)
        asked.append((self, prompts, result.low_res_logits[:, 0].detach()))
        return result

    monkeypatch.setattr(Sam, "decode", remember)
    monkeypatch.setattr(
        "mobilesam_core.training.distilling.decode_shared",
        lambda model, embeddings, image_index, counts, prompts: remember(model, embeddings, image_index, prompts),
    )
    step(batch)
    ours, theirs = ([each for each in asked if each[0] is model] for model in (student, teacher))
    assert [each[1].labels.shape[1] for each in ours] == [each[1].labels.shape[1] for each in theirs] == [2, 3, 4]
    disagreed = 0
    for number in range(2):
        mask, wanted = (each[number][2] > 0 for each in (ours, theirs))
        points, labels = ours[number + 1][1].points[:, -1], ours[number + 1][1].labels[:, -1]
        for i, ((x, y), label) in enumerate(zip(points.tolist(), labels.tolist(), strict=True)):
            if label == ABSENT:
                assert torch.equal(mask[i], wanted[i])
                continue
            disagreed += 1
            at = (i, round((y + 0.5) / 4 - 0.5), round((x + 0.5) / 4 - 0.5))  # the mask's pixels are 4 wide
            assert mask[at] != wanted[at] and label == int(wanted[at])
    assert disagreed >= 2


def test_no_click_is_beside_the_image(batch: Batch) -> None:
    """The second image ends at row 48 of 64: what the two think of its padding is nobody's business."""
    sizes = batch.sizes[batch.image_index]
    masks = torch.zeros(3, 16, 16, dtype=torch.bool)
    wanted = masks.clone()
    wanted[:, 9:] = True
    clicked = corrected(batch.prompts, masks, wanted, sizes, 64)
    assert clicked.points[2, -1, 1].item() == 41.5 and clicked.labels[:, -1].tolist() == [1, 1, 1]
    wanted[:, :12] = False
    assert corrected(batch.prompts, masks, wanted, sizes, 64).labels[:, -1].tolist() == [1, 1, ABSENT]


def test_what_stored_features_have_beside_the_image_does_not_count(batch: Batch) -> None:
    student = seeded(0)
    teachers = [{"checkpoint": "nano", "store": "kept", "features": [{}]}]
    with torch.no_grad():
        theirs = student.encode(student.preprocess(batch.images, batch.sizes))
    theirs[1, :, 3:] += 100  # of 4 rows the last is padding
    kept = batch._replace(features={"teacher/neck": theirs})
    moved = distilling(student, student, teachers=teachers, geometry="features")(kept)
    assert moved["total"].item() == pytest.approx(0, abs=1e-6)
    assert distilling(student, student, teachers=teachers)(kept)["total"] > 100


def test_several_teachers_count_by_their_weights(batch: Batch) -> None:
    student, teacher = seeded(0), seeded(1)
    one = distilling(student, teacher, teachers=[{"checkpoint": "nano", "features": [{}]}])(batch)["total"]
    both = distilling(
        student,
        teacher,
        teachers=[
            {"checkpoint": "nano", "name": "a", "weight": 0.5, "features": [{}]},
            {"checkpoint": "nano", "name": "b", "weight": 2.0, "features": [{"weight": 3.0}]},
        ],
    )(batch)
    assert both["total"].item() == pytest.approx(6.5 * one.item(), rel=1e-5)
    assert both["b_features"].item() == pytest.approx(3 * one.item(), rel=1e-5)


def test_a_teacher_of_a_larger_frame_sees_the_same_scene(batch: Batch) -> None:
    """The same weights at twice the frame: features on a finer grid, masks brought to the student's."""
    student = open_checkpoint("nano", image_size=256).model
    teacher = open_checkpoint("nano", image_size=512).model
    y, x = np.mgrid[:256, :256]
    disc = (x - 120) ** 2 + (y - 100) ** 2 < 60**2
    image = torch.from_numpy(np.where(disc, 210, 40).astype(np.uint8)).expand(1, 3, 256, 256)
    box = torch.tensor([[60.0, 40.0, 181.0, 161.0]])
    wide = batch._replace(
        images=image,
        sizes=torch.tensor([[256, 256]]),
        image_index=torch.tensor([0]),
        counts=[1],
        prompts=batch_prompts(None, None, box, None, CPU),
        targets=torch.zeros(1, 64, 64),
    )
    settings = DistillConfig(ground_truth=0.0, teachers=[{"checkpoint": "nano"}], masks={})
    guide = Teacher(settings.teachers[0], teacher, "0" * 64)
    found = guide.decode(guide.features(wide, ["neck"])["neck"], wide, wide.prompts).low_res_logits[0, 0] > 0
    with torch.no_grad():
        own = student.decode(student.encode(student.preprocess(image)), wide.image_index, wide.prompts)
    seen = own.low_res_logits[0, 0].repeat_interleave(2, 0).repeat_interleave(2, 1) > 0
    assert (found & seen).sum() / (found | seen).sum() > 0.9


def shapes_as_files(folder: Path, count: int = 6) -> Path:
    """A folder set of bright squares on noise."""
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for i in range(count):
        mask = np.zeros((64, 48), np.uint8)
        x, y = rng.integers(4, 20, 2)
        mask[y : y + 20, x : x + 16] = 1
        pixels = np.where(mask[..., None] > 0, 200, rng.integers(0, 80, (64, 48, 3))).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{i}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{i}.png")
    return folder


MakeDistilling = Callable[..., TrainConfig]


@pytest.fixture
def make_distilling(make_config: MakeConfig, tmp_path: Path) -> MakeDistilling:
    """A config of files, with a teacher ``nano`` that reads a store unless it is told otherwise."""
    data = shapes_as_files(tmp_path / "data")
    sets = '{"format": "folder", "images": "images", "masks": "masks", "mask_mode": "instances"}'

    def make(*overrides: str, teacher: str = FEATURES, store: bool = True) -> TrainConfig:
        kept = f', "store": "{tmp_path / "store"}"' if store else ""
        return make_config(
            f"data.root={data}",
            f"data.train={sets}",
            f"data.val={sets}",
            "data.augment={}",
            f"distill.teachers=[{NANO}, {teacher}{kept}}}]",
            *overrides,
        )

    return make


def test_a_store_gives_what_the_teacher_itself_gives(make_distilling: MakeDistilling) -> None:
    config = make_distilling("distill.masks={}", "train.log_every=1", "train.run=stored")
    extracted = extract_for_training(config, device=CPU, reporter=NullReporter())
    assert [each.result.images for each in extracted] == [6]
    stored = train(config)
    live = train(make_distilling("distill.masks={}", "train.log_every=1", "train.run=live", store=False))
    for a, b in zip(
        lines(stored.folder / "metrics.jsonl", "train"), lines(live.folder / "metrics.jsonl", "train"), strict=True
    ):
        assert a["total"] == pytest.approx(b["total"], rel=2e-3), a["step"]
        assert {"teacher_features", "teacher_masks", "dice"} <= a.keys()
    assert {"box_agreement", "point_agreement"} <= stored.metrics.keys()
    again = extract_for_training(config, device=CPU, reporter=NullReporter())
    assert [(each.result.images, each.result.skipped) for each in again] == [(0, 6)]


def test_a_mix_stores_each_image_once(make_distilling: MakeDistilling) -> None:
    files = '{"format": "folder", "images": "images", "masks": "masks", "mask_mode": "instances"}'
    sets = f'[{{"set": {files}}}, {{"weight": 2, "set": {files}}}]'
    config = make_distilling(f'data.train={{"format": "mix", "sets": {sets}}}', "train.epochs=1")
    extracted = extract_for_training(config, device=CPU, reporter=NullReporter())
    assert [each.result.images for each in extracted] == [6]
    assert train(config).steps == 9  # 18 images, two a step
    drawn = '[{"set": {"format": "shapes"}}]'
    with pytest.raises(ConfigError, match="drawn shapes are no files"):
        make_distilling(f'data.train={{"format": "mix", "sets": {drawn}}}')


def test_features_turn_with_the_image(make_distilling: MakeDistilling) -> None:
    flips = '{"horizontal_flip": 0.5, "vertical_flip": 0.5, "transpose": 0.5}'
    mixed = ("train.precision=bf16", "train.ema=0.9", "distill.masks={}", "train.validation.agreement=false")
    config = make_distilling(f"data.augment={flips}", "distill.geometry=features", "train.epochs=1", *mixed)
    extract_for_training(config, device=CPU, reporter=NullReporter())
    result = train(config)
    (last, *_) = lines(result.folder / "metrics.jsonl", "train")[::-1]
    assert result.steps == 3 and "box_agreement" not in result.metrics
    assert all(np.isfinite(last[name]) for name in ("teacher_features", "teacher_masks"))


def test_an_interrupted_run_ends_as_an_uninterrupted_one(
    make_distilling: MakeDistilling, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = '[{"epochs": 1, "terms": ["features"]}, {"epochs": 1, "terms": ["ground_truth", "masks"]}]'
    overrides = ("distill.masks={rounds: 1}", f"distill.stages={stages}")
    whole = train(make_distilling(*overrides, "train.run=whole", store=False))
    config = make_distilling(*overrides, "train.run=cut", store=False)
    with monkeypatch.context() as patched:
        interrupt_after(patched, 2)
        with pytest.raises(Interrupted):
            train(config)
    resumed = train(config, resume=True)
    a, b = (open_checkpoint(result.last).model.state_dict() for result in (whole, resumed))
    assert all(torch.equal(a[key], b[key]) for key in a)
    kept = torch.load(resumed.folder / "state.pt", weights_only=True)["parts"]["feature_losses"]
    assert [tuple(value.shape) for value in kept.values()] == [(96, 48, 1, 1), (96,)]  # the projection is kept too


def test_stages_say_what_is_learnt_when(make_distilling: MakeDistilling) -> None:
    stages = '[{"epochs": 1, "terms": ["features"]}, {"epochs": 1, "terms": ["ground_truth"]}]'
    result = train(make_distilling(f"distill.stages={stages}", "train.log_every=1", store=False))
    first, second = ([r for r in lines(result.folder / "metrics.jsonl", "train") if r["epoch"] == e] for e in (1, 2))
    assert all("teacher_features" in r and "dice" not in r for r in first)
    assert all("dice" in r and "teacher_features" not in r for r in second)


def test_the_decoder_of_the_teacher_is_copied(make_distilling: MakeDistilling) -> None:
    overrides = ("distill.copy_decoder=true", "distill.ground_truth=0", "train.epochs=1")
    result = train(make_distilling(*overrides, teacher='"image_size": 64, "features": [{}]', store=False))
    ours, theirs = (open_checkpoint(path).model for path in (result.last, "nano"))
    for part in ("prompt_encoder", "mask_decoder"):
        a, b = getattr(ours, part).state_dict(), getattr(theirs, part).state_dict()
        assert all(torch.equal(a[key], b[key]) for key in a)  # no term asks for masks: it is not trained either
    assert not torch.equal(ours.image_encoder.neck[0].weight, theirs.image_encoder.neck[0].weight)
    told = json.loads(open_checkpoint(result.last).metadata["training_config"])
    assert told["distill"]["copy_decoder"] and "checkpoint" not in told["distill"]["teachers"][0]
    taught = json.loads(open_checkpoint(result.last).metadata["teachers_sha256"])
    assert taught == {"teacher": open_checkpoint("nano").sha256}


def test_images_without_labels_teach_too(make_distilling: MakeDistilling) -> None:
    unlabelled = 'data.train={"format": "images", "images": "images"}'
    config = make_distilling(unlabelled, "distill.ground_truth=0", "distill.masks={rounds: 1}", "train.epochs=1")
    extract_for_training(config, device=CPU, reporter=NullReporter())
    assert "box_agreement" in train(config).metrics


def test_what_a_store_lacks_is_all_named(make_distilling: MakeDistilling, tmp_path: Path) -> None:
    config = make_distilling("train.run=lacking")
    extract_for_training(config, device=CPU, reporter=NullReporter())
    for name in ("1", "4"):
        path = tmp_path / "data" / "images" / f"{name}.png"
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    with pytest.raises(DataError) as refused:
        train(config)
    assert all(f"images/{name}.png" in refused.value.message for name in ("1", "4"))
    assert "images/0.png" not in refused.value.message and "distill extract" in refused.value.remedy
    extract_for_training(config, device=CPU, reporter=NullReporter())
    (store,) = sorted((tmp_path / "store").glob("*-00000.safetensors"))
    damaged = bytearray(store.read_bytes())
    damaged[-3] ^= 0xFF
    store.write_bytes(damaged)
    with pytest.raises(DataError, match=r"00000\.safetensors is broken"):
        train(make_distilling("train.run=broken"))


def test_a_run_does_not_go_on_with_another_teacher(
    make_distilling: MakeDistilling, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    weights = tmp_path / "teacher.safetensors"
    save_weights(seeded(1), weights, {})
    config = make_distilling(f"distill.teachers=[{{checkpoint: {weights}, features: [{{}}]}}]", "train.run=cut")
    with monkeypatch.context() as patched:
        interrupt_after(patched, 2)
        with pytest.raises(Interrupted):
            train(config)
    save_weights(seeded(2), weights, {})
    with pytest.raises(UsageError, match="teacher's weights are not those"):
        train(config, resume=True)


def test_an_unreadable_image_is_left_out_of_a_store_too(make_distilling: MakeDistilling, tmp_path: Path) -> None:
    (tmp_path / "data" / "images" / "2.png").write_bytes(b"no image")
    config = make_distilling("data.on_bad_file=skip", "train.epochs=1")
    (extracted,) = extract_for_training(config, device=CPU, reporter=NullReporter())
    assert (extracted.result.images, len(extracted.result.failures)) == (5, 1)
    assert train(config).steps == 3


@pytest.mark.parametrize(
    ("overrides", "teacher", "problem"),
    [
        ((), '"image_size": 64, "features": [{"teacher": "stages.7"}]', "no level stages.7.*stages.3, neck"),
        ((), '"image_size": 64, "features": [{"student": "blocks.1"}]', "no level blocks.1"),
        (
            (),
            '"image_size": 64, "features": [{"teacher": "stages.0"}]',
            r"teacher, stages.0 → neck: .*128 x 4 x 4.*32 x 16 x 16",
        ),
        (("distill.copy_decoder=true", "model.iou_head_depth=4"), FEATURES, "mask decoder of teacher.*does not fit"),
        (("distill.tokens={}", "model.name=vit_t", "model.checkpoint=null"), FEATURES, "256 wide.*128"),
        (("model.encoder.input_channels=1",), FEATURES, "1 channels.*3"),
        (("distill.prompt_embeddings={}", "train.seed=5"), FEATURES, "other frequencies.*copy_decoder"),
    ],
)
def test_what_does_not_fit_is_said_before_training(
    make_distilling: MakeDistilling, overrides: tuple[str, ...], teacher: str, problem: str
) -> None:
    with pytest.raises(UsageError) as refused:
        train(make_distilling(*overrides, teacher=teacher, store=False))
    assert re.search(problem, str(refused.value)), str(refused.value)


def test_a_store_of_another_teacher_is_refused(make_distilling: MakeDistilling, tmp_path: Path) -> None:
    extract_for_training(make_distilling(), device=CPU, reporter=NullReporter())
    other = make_distilling(teacher='"image_size": 128, "features": [{"resize": true}]')
    with pytest.raises(UsageError, match="image_size 64, not 128"):
        train(other)


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (("data.augment={crop: 32}",), "set distill.geometry to 'features'"),
        (("distill.stages=[{epochs: 1, terms: [features]}]",), "last 1 epochs in all, train.epochs is 2"),
        (("distill.stages=[{epochs: 2, terms: [masks]}]",), "stages name masks"),
        (("distill.teachers=[{checkpoint: nano}]",), "nothing is learnt from the teachers"),
        (("distill.teachers=[{checkpoint: nano}, {checkpoint: nano}]", "distill.masks={}"), "a name of its own"),
        (("distill.teachers=[{checkpoint: nano, features: [{student: neck, los: mse}]}]",), "did you mean 'loss'"),
        (("train.freeze.image_encoder=true",), "nothing to learn from features"),
        (("distill.prompt_embeddings={mse: 0}",), "cannot both be 0"),
        (('data.train={"format": "images", "images": "images"}',), "set distill.ground_truth to 0"),
        (('data.train={"format": "images", "images": "images"}', "distill=null"), "name a teacher"),
        (("distill.prompt_embeddings={}", "train.freeze.prompt_encoder=true"), "to learn from prompt_embeddings"),
        (("data.train={format: shapes}",), "drawn shapes are no files"),
        (
            (
                "distill.teachers=[{checkpoint: nano, name: a, store: s}, {checkpoint: nano, name: b, store: s}]",
                "distill.masks={}",
            ),
            "a store of its own",
        ),
    ],
)
def test_configs_that_contradict_themselves(
    make_distilling: MakeDistilling, overrides: tuple[str, ...], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        make_distilling(*overrides)
