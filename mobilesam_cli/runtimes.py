"""From the options that name a model to a model that runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mobilesam_core.errors import UsageError

if TYPE_CHECKING:
    from mobilesam_core.runtime.protocol import Runtime

Device = Literal["auto", "cpu", "cuda", "mps"]


@dataclass(frozen=True)
class ModelChoice:
    """The options of :mod:`mobilesam_cli.model_options`, as they were given."""

    checkpoint: str | None
    model_type: str | None
    image_size: int | None
    device: Device
    precision: Literal["32", "bf16"] = "32"
    onnx_encoder: Path | None = None
    onnx_decoder: Path | None = None
    providers: str = "CPU"
    force: bool = False

    def open(self) -> Runtime:
        """The model: exported files with ONNX Runtime, and without torch; else a checkpoint with torch.

        Raises:
            UsageError, CheckpointError: it cannot be opened.
        """
        self.check()
        if self.onnx_encoder is None or self.onnx_decoder is None:
            return self._open_torch()
        from mobilesam_core.runtime.opening import open_onnx

        return open_onnx(self.onnx_encoder, self.onnx_decoder, self.providers.split(","), self.force)

    def check(self) -> None:
        """Whether the options go together, before anything is opened.

        Raises:
            UsageError: they do not.
        """
        if self.onnx_encoder is None and self.onnx_decoder is None:
            if self.force or self.providers != "CPU":
                option = "--force" if self.force else "--providers"
                raise UsageError(f"{option} goes only with --onnx-encoder and --onnx-decoder.", f"Leave out {option}.")
            return
        if self.onnx_encoder is None or self.onnx_decoder is None:
            missing = "--onnx-encoder" if self.onnx_encoder is None else "--onnx-decoder"
            raise UsageError(f"{missing} is missing: the two go together.", "Name both files.")
        of_torch = {
            "--checkpoint": self.checkpoint is not None,
            "--model-type": self.model_type is not None,
            "--image-size": self.image_size is not None,
            "--device": self.device != "auto",
            "--precision": self.precision != "32",
        }
        if given := [option for option, yes in of_torch.items() if yes]:
            raise UsageError(
                f"{given[0]} is for torch; exported files have their own.", f"Leave out {given[0]}, or the files."
            )

    def _open_torch(self) -> Runtime:
        from mobilesam_cli.console import reporter
        from mobilesam_core.checkpoints.loading import default_checkpoint
        from mobilesam_core.prediction.device import resolve_device
        from mobilesam_core.runtime.torch_runtime import open_torch

        device = resolve_device(self.device)
        return open_torch(
            self.checkpoint or default_checkpoint(self.model_type, reporter()),
            device,
            model_name=self.model_type,
            image_size=self.image_size,
            precision=self.precision,
            reporter=reporter(),
        )
