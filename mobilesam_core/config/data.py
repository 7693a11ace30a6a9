"""The ``data:`` section: where images and masks are and how training sees them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field, field_validator, model_validator

from mobilesam_core.config.base import Config
from mobilesam_core.config.tiles import TileConfig

Probability = Annotated[float, Field(ge=0, le=1)]
MaskMode = Literal["binary", "components", "instances", "classes", "per_instance"]


class FolderConfig(Config):
    """Images beside mask images of the same stem, or beside a folder of masks named after the stem."""

    format: Literal["folder"]
    images: Path
    """Folder of images, relative to ``data.root``."""
    masks: Path
    """Folder of masks: ``<stem>.png`` (any mode but ``per_instance``) or ``<stem>/*.png`` (``per_instance``)."""
    mask_mode: MaskMode
    """``binary``: all that is not 0 is one object. ``components``: each connected component is an object.
    ``instances``: each id but 0 is an object. ``classes``: each class index but 0 is an object.
    ``per_instance``: each file of ``masks/<stem>/`` is one object."""
    ignore_index: Annotated[int, Field(ge=0, le=65535)] | None = None
    """With ``classes``: an index that is no object (often 255)."""

    @model_validator(mode="after")
    def _ignores_a_class(self) -> FolderConfig:
        if self.ignore_index is not None and self.mask_mode != "classes":
            raise ValueError(f"ignore_index goes with mask_mode 'classes', not '{self.mask_mode}'")
        return self


class CocoConfig(Config):
    """COCO instance JSON: polygons, compressed and uncompressed RLE."""

    format: Literal["coco"]
    images: Path
    """Folder of images, relative to ``data.root``."""
    annotations: Path
    """The JSON file, relative to ``data.root``."""
    crowd: Literal["skip", "keep"] = "skip"
    """What to do with ``iscrowd`` regions: they cover many objects, so they are left out by default."""


class Sa1bConfig(Config):
    """A folder of images, and for each a JSON of the same stem as SA-1B and ``mobilesam amg --format sa1b`` have it."""

    format: Literal["sa1b"]
    images: Path
    """Folder of images, relative to ``data.root``."""
    annotations: Path | None = None
    """Folder of the JSON files, relative to ``data.root`` (null: beside the images)."""


class YoloConfig(Config):
    """YOLO segmentation: a text file of polygons for each image, in shares of its width and height."""

    format: Literal["yolo"]
    images: Path
    """Folder of images, relative to ``data.root``."""
    labels: Path
    """Folder of ``<stem>.txt``, one object a line, ``class x1 y1 x2 y2 ...`` within 0 and 1, relative to
    ``data.root``. An image whose file is empty or missing has no object and is left out. ``classes.txt``, where it
    exists, names the classes, one a line from 0."""


class LabelmeConfig(Config):
    """labelme: a JSON of polygons, rectangles and circles for each image.

    Shapes of one ``label`` and ``group_id`` are one object; a JSON without shapes is left out.
    """

    format: Literal["labelme"]
    annotations: Path
    """Folder of the JSON files, relative to ``data.root``."""
    images: Path | None = None
    """Folder of the images, relative to ``data.root`` (null: where each JSON's ``imagePath`` says)."""


ShapesDomain = Literal[
    "crowd", "specks", "polygons", "thin", "holes", "heap", "texture", "large", "symbols", "cells", "tools"
]
HELD_OUT_DOMAINS: tuple[ShapesDomain, ...] = ("symbols", "cells", "tools")
TRAINED_DOMAINS: tuple[ShapesDomain, ...] = tuple(d for d in get_args(ShapesDomain) if d not in HELD_OUT_DOMAINS)
"""What the embedded weights ``nano`` were trained on."""


class ShapesConfig(Config):
    """Procedurally drawn shapes: no files needed."""

    format: Literal["shapes"]
    domains: Annotated[tuple[ShapesDomain, ...], Field(min_length=1)] = TRAINED_DOMAINS
    """Kinds of scene, evenly mixed; all but ``symbols``, ``cells`` and ``tools`` unless named. Name one twice to see it
    twice as often."""
    count: Annotated[int, Field(ge=1)] = 256
    """Images in an epoch."""
    size: Annotated[int, Field(ge=32, le=4096)] = 256
    """Side of the drawn images in pixels."""
    max_shapes: Annotated[int, Field(ge=1)] | None = None
    """At most so many shapes in an image (null: as many as the domain has)."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Images are a function of the keys above, this seed and their index."""


class ImagesConfig(Config):
    """Images without labels, for a student to learn its teachers' answers on."""

    format: Literal["images"]
    images: Path
    """Folder of images, searched through with all that is below it, relative to ``data.root``."""


FileSetConfig = FolderConfig | CocoConfig | Sa1bConfig | YoloConfig | LabelmeConfig
SetConfig = Annotated[FileSetConfig | ShapesConfig, Field(discriminator="format")]


class MixedSetConfig(Config):
    """One of the sets of a mix."""

    weight: Annotated[float, Field(gt=0)] = 1.0
    """Its share of the images is this, of the sum of all weights."""
    set: SetConfig
    """A labelled set of any format."""


class MixConfig(Config):
    """Several labelled sets, mixed by weight.

    Sets take turns in a fixed order: after any number of images each has given its share, to within one image or two.
    Which image of which set an index is depends on this config and the sets' sizes alone, so an epoch holds the same
    images as the last, in an order drawn anew (augmented and prompted anew) from the seed.
    """

    format: Literal["mix"]
    sets: Annotated[tuple[MixedSetConfig, ...], Field(min_length=1)]
    """The sets, each with its weight."""
    count: Annotated[int, Field(ge=1)] | None = None
    """Images in an epoch (null: the fewest with which each image of each set occurs). A set with a larger share
    than it has images begins again; of one with a smaller share, as many images are taken, evenly spread."""


TrainSetConfig = Annotated[FileSetConfig | ShapesConfig | ImagesConfig | MixConfig, Field(discriminator="format")]


class AugmentConfig(Config):
    """Random changes of training images, applied to image and masks alike. Off unless asked for."""

    crop: Annotated[int, Field(ge=16)] | None = None
    """Side in image pixels of a square crop, placed on a random object and scaled to the model's input.
    Smaller than the images, it magnifies small objects."""
    scale: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (1.0, 1.0)
    """Scale jitter: the view is magnified by a factor drawn (log-uniformly) from this range."""
    horizontal_flip: Probability = 0.0
    """Chance of mirroring left and right."""
    vertical_flip: Probability = 0.0
    """Chance of mirroring top and bottom."""
    transpose: Probability = 0.0
    """Chance of swapping x and y: with both flips, all eight orientations occur."""
    brightness: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Colour jitter as in torchvision's ColorJitter: a factor from [1 - value, 1 + value]."""
    contrast: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The same of contrast."""
    saturation: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The same of saturation."""
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Hue is turned by up to this share of the colour circle, either way."""

    @field_validator("scale")
    @classmethod
    def _ordered(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] > value[1]:
            raise ValueError("the first value must not exceed the second")
        return value

    @property
    def changes(self) -> bool:
        """Whether an image ever looks different from one time to the next."""
        return self.moves or any((self.brightness, self.contrast, self.saturation, self.hue))

    @property
    def moves(self) -> bool:
        """Whether anything changes where in the image a place of the frame is."""
        still = self.crop is None and self.scale == (1.0, 1.0)
        return not (still and self.horizontal_flip == self.vertical_flip == self.transpose == 0)


class DataConfig(TileConfig):
    """Training and validation data.

    With ``tile`` an epoch sees each tile in which an object can be trained on, in place of each image, and validation
    asks about an object in the tile that holds it whole.
    """

    root: Path = Path()
    """Prefix of every path of the sets below; itself relative to the working directory."""
    train: TrainSetConfig
    """What is trained on."""
    val: SetConfig | None = None
    """Without a validation set, ``best`` is the last checkpoint."""
    max_objects: Annotated[int, Field(ge=1)] = 16
    """At most so many objects of an image in one step, drawn at random."""
    min_object_area: Annotated[int, Field(ge=1)] = 4
    """Objects of fewer pixels in the input frame are not trained on (evaluation counts every object)."""
    augment: AugmentConfig = AugmentConfig()
    workers: Annotated[int, Field(ge=0)] | None = None
    """Processes that prepare batches ahead of the step (null: 1 on two cores, up to 8 on more)."""
    verify: bool = True
    """Read every file once before training, so that a bad one is found now and not after an hour."""
    on_bad_file: Literal["stop", "skip"] = "stop"
    """``stop`` lists all bad files and ends; ``skip`` lists them and trains on the others."""

    @model_validator(mode="after")
    def _finds_tiles(self) -> DataConfig:
        if self.tile is not None and not self.verify:
            raise ValueError("verify=false does not go with tile: which tiles hold an object shows when files are read")
        return self
