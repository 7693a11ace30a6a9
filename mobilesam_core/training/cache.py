"""Embeddings of a frozen image encoder, made once and read in every epoch."""

from __future__ import annotations

import hashlib
import shutil
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor

from mobilesam_core.config.train import TrainConfig
from mobilesam_core.data.loader import build_loader, default_workers
from mobilesam_core.data.sample import SampleSource
from mobilesam_core.data.subset import spread
from mobilesam_core.data.training_set import TrainingSet
from mobilesam_core.data.view import SeenView
from mobilesam_core.errors import DataError, OutputError, UsageError
from mobilesam_core.files import file_sha256
from mobilesam_core.models.sam import Sam
from mobilesam_core.ops.frame import STRIDE, Frame, resize_image
from mobilesam_core.ops.layout import NECK
from mobilesam_core.ops.resize import pad_to_frame, to_tensor
from mobilesam_core.prediction.stored import StoredEmbeddings
from mobilesam_core.progress import Reporter
from mobilesam_core.runtime.torch_runtime import TorchRuntime
from mobilesam_core.stores.features import FeatureStore, FeatureWriter, require_space
from mobilesam_core.stores.producer import Producer
from mobilesam_core.training.processes import Processes
from mobilesam_core.training.run import Sets
from mobilesam_core.training.run_folder import RunFolder


class ViewKeys:
    """Under which key of a store the embedding of a view lies.

    All of an unchanged image file has the file's sha256, as ``mobilesam embed`` stores it; a part or a change of it,
    or a drawn image, the sha256 of all that it depends on.
    """

    def __init__(self, source: SampleSource, config: TrainConfig) -> None:
        data = config.data
        self._augment = data.augment.model_dump_json()
        self._contents: dict[str, str] = {}
        for index in range(len(source)):
            name = source.describe(index)
            path = Path(name)
            self._contents[name] = file_sha256(path) if path.is_file() else _sha256(data.train.model_dump_json(), name)

    def of_images(self) -> Iterable[str]:
        """The keys of all images, whole and unchanged."""
        return self._contents.values()

    def __call__(self, view: SeenView) -> str:
        content = self._contents[view.source]
        return _sha256(content, str(view.window), view.change, self._augment) if view.change else content


class EmbeddingCache:
    """The :class:`~mobilesam_core.data.training_set.CachedEmbeddings` of a folder."""

    def __init__(self, folder: Path, keys: ViewKeys) -> None:
        self._store, self._keys = FeatureStore(folder), keys

    def read(self, view: SeenView) -> Tensor:
        """See :class:`~mobilesam_core.data.training_set.CachedEmbeddings`."""
        key = self._keys(view)
        if key not in self._store:
            raise DataError(
                f"{self._store.folder} holds no embedding of what training sees of {view.source}: the image or its "
                "masks have changed since the run began.",
                "Restore them, or resume: what is missing is then made.",
            )
        return torch.from_numpy(self._store.read(key))


def cache_embeddings(
    config: TrainConfig,
    model: Sam,
    sets: Sets,
    folder: RunFolder,
    fabric: Fabric,
    processes: Processes,
    reporter: Reporter,
) -> Sets:
    """``sets`` that bring embeddings in place of images, where the encoder of ``model`` is frozen and what it sees
    comes again; says so, or why not. Of several processes each makes its share of them.

    Raises:
        UsageError: ``train.cache.folder`` holds features of another encoder.
        OutputError: a file cannot be written, and ``train.cache.use`` is ``always``.
        DataError: a file of images or of the cache cannot be used.
    """
    cache = config.train.cache
    if cache.use == "never":
        return sets
    if reason := config.why_no_cache:
        if config.train.freeze.image_encoder:
            reporter.info(f"Every step runs the frozen image encoder: {reason}.")
        return sets
    views = min(config.views or 1, config.train.epochs)
    if cache.use == "auto" and cache.folder is None and views == config.train.epochs:
        reporter.info("Every step runs the frozen image encoder: no embedding would be read twice.")
        return sets
    where = cache.folder or folder.embeddings
    if cache.folder is None:
        processes.from_first(lambda: _clear_others(where, Producer.of(model, config.train.precision)))
    keys = processes.from_first(lambda: ViewKeys(sets.train.source, config))  # it reads every file
    # Validation looks at tiles, too, which are no files and not stored.
    images = [] if config.data.tile else _val_images(sets.val, config.train.validation.max_images)
    try:
        processes.together(lambda: _fill(config, model, sets, keys, views, images, where, fabric, processes, reporter))
    except UsageError as error:
        error.remedy = "Name another folder (train.cache.folder), or none."
        raise
    except OutputError as error:
        if cache.use == "always":
            error.remedy = "Free some space, or name another folder (train.cache.folder)."
            raise
        if cache.folder is None:  # what fits is of no use, and the disk is needed for checkpoints
            shutil.rmtree(where, ignore_errors=True)
        reporter.warning(f"{error.message} Every step runs the frozen image encoder instead.")
        return sets
    stored = StoredEmbeddings(where, TorchRuntime(model)) if images else None
    reporter.info(
        f"The image encoder is frozen: its embeddings, {views} for each image or tile, are read from {where}."
    )
    return replace(sets, train=sets.train.with_embeddings(EmbeddingCache(where, keys)), stored=stored)


def _clear_others(folder: Path, producer: Producer) -> None:
    """Remove what a start with other weights left in the run's own folder."""
    try:
        left = FeatureStore(folder).producer
    except UsageError:
        return
    except DataError:
        left = None
    if left != producer:
        shutil.rmtree(folder)


@dataclass(frozen=True)
class _View:
    """An image in its frame, ``(C, S, S)`` uint8, and the ``(h, w)`` that is image; ``original`` size; its key."""

    name: str
    key: str
    original: tuple[int, int]
    image: Tensor
    size: Tensor


@torch.no_grad()
def _fill(
    config: TrainConfig,
    model: Sam,
    sets: Sets,
    keys: ViewKeys,
    views: int,
    images: list[int],
    folder: Path,
    fabric: Fabric,
    processes: Processes,
    reporter: Reporter,
) -> None:
    """Store the embedding of each of ``views`` views of the training images, and of the validation ``images``, that
    ``folder`` lacks: of this process's share of them."""
    modes = [(module, module.training) for module in model.image_encoder.modules()]
    model.image_encoder.eval()
    size = 2 * model.prompt_encoder.no_mask_embed.embedding_dim * (model.image_size // STRIDE) ** 2
    count = len(sets.train) * views + len(images)
    # Runs and processes may share a folder: each writes files of its own.
    part = f"-{uuid.uuid4().hex[:8]}" if config.train.cache.folder or processes.count > 1 else ""
    rank, turns = processes.rank, processes.count
    try:
        with FeatureWriter(folder, Producer.of(model, config.train.precision), part) as writer:
            if config.data.augment.changes or config.data.tile is not None:
                held = min(len(writer), count)  # keys of changed views and of tiles are not known before they are made
            else:
                val_files = [Path(sets.val.describe(index)) for index in images] if sets.val is not None else []
                known = [*keys.of_images(), *map(file_sha256, val_files)]
                held = sum(not writer.missing(key, [NECK]) for key in known)
            require_space(folder, (count - held) * size)
            shares = -(-len(sets.train) // turns) * views + len(images[rank::turns])
            with reporter.task("Caching embeddings", shares, "views") as task:
                made = chain(
                    _train_views(sets.train, keys, views, config, processes),
                    _whole_images(images[rank::turns], sets.val, model),
                )
                for view in made:
                    if writer.missing(view.key, [NECK]):
                        image, sizes = (each[None].to(fabric.device) for each in (view.image, view.size))
                        with fabric.autocast():
                            found = model.encode(model.preprocess(image, sizes))
                        embedding = found[0].to("cpu", torch.float16).numpy()
                        writer.add(view.name, view.key, view.original, {NECK: (embedding, "CHW")})
                    task.advance()
    finally:
        for module, mode in modes:
            module.train(mode)


def _train_views(
    dataset: TrainingSet, keys: ViewKeys, views: int, config: TrainConfig, processes: Processes
) -> Iterator[_View]:
    rank, count = processes.rank, processes.count
    workers = processes.part_of(default_workers()) if config.data.workers is None else config.data.workers
    loader = build_loader(dataset, count, workers, config.train.seed, rank=rank, count=count)
    try:
        for number in range(views):
            loader.set_epoch(number)
            for batch in loader:
                if batch.spare:
                    continue  # another process stores it
                (view,) = batch.views
                left, top, right, bottom = view.window
                original = (bottom - top, right - left)
                yield _View(view.source, keys(view), original, batch.images[0], batch.sizes[0])
    finally:
        loader.close()


def _val_images(source: SampleSource | None, limit: int | None) -> list[int]:
    """The indices of the samples of ``source`` that are validated on and are image files."""
    chosen = [] if source is None else spread(len(source), limit)
    return [index for index in chosen if source is not None and Path(source.describe(index)).is_file()]


def _whole_images(indices: list[int], source: SampleSource | None, model: Sam) -> Iterator[_View]:
    for index in indices:
        assert source is not None
        try:
            sample = source[index]
        except DataError:
            continue  # validation will name it
        height, width = sample.image.shape[:2]
        image = to_tensor(resize_image(sample.image, Frame.of(height, width, model.image_size)))
        key = file_sha256(Path(sample.source))
        size = torch.tensor(image.shape[1:])
        yield _View(sample.source, key, (height, width), pad_to_frame(image, model.image_size), size)


def _sha256(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
