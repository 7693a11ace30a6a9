"""What one user of the page has: an image, what was asked of it so far, and the answers."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import RLock

import numpy as np
from PIL import Image

from mobilesam_core.amg.generator import FoundMask
from mobilesam_core.amg.workflow import build_generator, find_masks
from mobilesam_core.app.uploads import NamedImage
from mobilesam_core.config.amg import AmgConfig
from mobilesam_core.errors import UsageError
from mobilesam_core.ops.frame import Frame
from mobilesam_core.prediction.answers import select_masks
from mobilesam_core.prediction.requests import (
    Box,
    ImageRequest,
    ObjectRequest,
    Point,
    check_inside,
    objects_from_flags,
)
from mobilesam_core.runtime.protocol import Array, EncodedImage, Runtime, file_channels


@dataclass(frozen=True)
class Click:
    """A point on the object, or with ``positive`` False not on it."""

    at: Point
    positive: bool


Step = Click | Box
"""What can be undone: a click, or a box, which takes the place of the one before."""


@dataclass(frozen=True)
class Answer:
    """What the decoder says of a prompt.

    logits: ``(1, 4, S/4, S/4)``. scores: the predicted IoU of each. automatic: the output that ``mobilesam predict``
    takes.
    """

    request: ObjectRequest
    logits: Array
    scores: tuple[float, ...]
    automatic: int


class Session:
    """One user's work; calls from several threads take turns.

    token: known to its user alone. revision: grows with every change; opened: what it was when the image came.
    received: an image that was sent and is not open yet.
    steps: the prompts so far. output: which of the decoder's outputs is shown; None is the automatic one. found:
    everything in the image, where that was looked for last.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.lock = RLock()
        self.token = secrets.token_urlsafe(16)
        self.runtime = runtime
        self.revision = self.opened = 0
        self.image: NamedImage | None = None
        self.received: NamedImage | None = None
        self.steps: tuple[Step, ...] = ()
        self.answer: Answer | None = None
        self.output: int | None = None
        self.found: tuple[FoundMask, ...] | None = None
        self._encoded: EncodedImage | None = None

    @property
    def size_in_bytes(self) -> int:
        """About what it keeps in memory."""
        images = [image for image in (self.image, self.received) if image is not None]
        embedding = 0 if self._encoded is None else 4 * int(np.prod(self._encoded.embedding.shape))
        return sum(image.pixels.nbytes for image in images) + embedding

    def open(self, image: NamedImage) -> None:
        """Encode an image, once; prompts begin anew. Meanwhile the one before may be asked things."""
        runtime = self.runtime
        encoded = _encode(runtime, image.pixels)
        with self.lock:
            if self.runtime is not runtime:
                raise UsageError("Another model was chosen while the image was opened.", "Open it again.")
            self._encoded, self.image = encoded, image
            if self.received is image:  # not another one that has come since
                self.received = None
            self._show((), None)
            self.opened = self.revision

    def use(self, runtime: Runtime) -> None:
        """Go on with another model: the same image and prompts, encoded and answered anew."""
        image = self.image
        encoded = None if image is None else _encode(runtime, image.pixels)
        with self.lock:
            if self.image is not image:
                raise UsageError("Another image was opened while the model was.", "Choose the model again.")
            self.runtime, self._encoded = runtime, encoded
            self._show(self.steps, self._ask(self.steps))

    def add(self, step: Step) -> None:
        """Ask with one more click or another box.

        Raises:
            UsageError: there is no image.
            PromptError: the step is not in the image; nothing has changed.
        """
        with self.lock:
            self._require_image()
            steps = (*self.steps, step)
            self._show(steps, self._ask(steps))

    def undo(self) -> None:
        """Take the last step back: what was found of everything, or a prompt."""
        with self.lock:
            steps = self.steps if self.found is not None else self.steps[:-1]
            self._show(steps, self._ask(steps))

    def clear(self) -> None:
        """Forget all prompts and masks; the image stays."""
        with self.lock:
            self._show((), None)

    def choose(self, output: int | None) -> None:
        """Show output 0 (the single mask), 1 to 3 (the multimask outputs), or None (the automatic one)."""
        with self.lock:
            self.output = output
            self.revision += 1

    def find_everything(self, settings: AmgConfig) -> None:
        """Look for everything in the image, with thresholds that are settled; meanwhile it may be asked other things.

        Raises:
            UsageError: there is no image, or another one by now.
        """
        with self.lock:
            image, encoded, runtime = self._require_image(), self._encoded, self.runtime
        found = find_masks(build_generator(runtime, settings), settings, _pixels_for(runtime, image.pixels), encoded)
        with self.lock:
            if self._encoded is not encoded:
                raise UsageError("What was found is not of this image and model.", "Find everything again.")
            self.found = found
            self.revision += 1

    def mask(self, size: tuple[int, int] | None = None) -> np.ndarray | None:
        """The ``(H, W)`` bool mask of the prompts, or None without any.

        size: ``(H, W)`` of a smaller view of the image that it is for; None is the image's own size, where it is what
        ``mobilesam predict`` gives.
        """
        answer, encoded = self.answer, self._encoded
        if answer is None or encoded is None:
            return None
        frame = encoded.frame if size is None else Frame(size, encoded.frame.scaled, encoded.frame.size)
        chosen = answer.logits[:, self.chosen : self.chosen + 1]
        with self.runtime.running():
            mask: np.ndarray = self.runtime.masks(chosen, frame, self.runtime.mask_threshold)[0, 0]
        return mask

    @property
    def chosen(self) -> int:
        """The output that is shown."""
        assert self.answer is not None
        return self.answer.automatic if self.output is None else self.output

    def _ask(self, steps: Sequence[Step]) -> Answer | None:
        if not steps or self._encoded is None or self.image is None:
            return None
        request = _request(steps, self.image)
        prompt = request.prompt(None)
        with self.runtime.running():
            decoded = self.runtime.decode(self._encoded, [prompt])
        automatic = int(select_masks(decoded.iou_predictions, [prompt])[0])
        return Answer(request, decoded.low_res_logits, tuple(decoded.iou_predictions[0].tolist()), automatic)

    def _show(self, steps: tuple[Step, ...], answer: Answer | None) -> None:
        self.steps, self.answer, self.output, self.found = steps, answer, None, None
        self.revision += 1

    def _require_image(self) -> NamedImage:
        if self.image is None:
            raise UsageError("There is no image yet.", "Open one, or choose a sample.")
        return self.image


def _request(steps: Sequence[Step], image: NamedImage) -> ObjectRequest:
    """As ``mobilesam predict`` has it."""
    clicks = [step for step in steps if isinstance(step, Click)]
    boxes = [step for step in steps if not isinstance(step, Click)]
    (request,) = objects_from_flags(
        [click.at for click in clicks if click.positive],
        [click.at for click in clicks if not click.positive],
        boxes[-1:],
        None,
    )
    check_inside(ImageRequest(Path(image.name), (request,)), image.pixels.shape[0], image.pixels.shape[1])
    return request


def _encode(runtime: Runtime, pixels: np.ndarray) -> EncodedImage:
    with runtime.running():
        return runtime.encode(_pixels_for(runtime, pixels))


def _pixels_for(runtime: Runtime, pixels: np.ndarray) -> np.ndarray:
    """``(H, W, 3)`` RGB, or ``(H, W)`` for a model of one channel."""
    if file_channels(runtime.channels, runtime.source) == 3:
        return pixels
    return np.asarray(Image.fromarray(pixels).convert("L"))
