"""The packages that are needed, and those that some commands need besides."""

from __future__ import annotations

import importlib.metadata
from typing import NamedTuple


class Package(NamedTuple):
    """distribution: what pip calls it. module: what Python does, where it is imported to see whether that works."""

    distribution: str
    module: str | None = None


class Extra(NamedTuple):
    """Packages that come with ``pip install 'mobilesam[NAME]'``, and what needs them."""

    name: str
    packages: tuple[str, ...]
    needed_by: str


NEEDED = (
    Package("numpy", "numpy"),
    Package("pillow", "PIL"),
    Package("opencv-python-headless", "cv2"),
    Package("torch", "torch"),
    Package("torchvision", "torchvision"),
    Package("timm", "timm"),
    Package("lightning-fabric"),
    Package("safetensors", "safetensors"),
    Package("pycocotools", "pycocotools"),
    Package("faster-coco-eval"),
    Package("onnx"),
    Package("onnxscript"),
    Package("onnxruntime", "onnxruntime"),
    Package("pydantic", "pydantic"),
    Package("pyyaml", "yaml"),
    Package("rich"),
    Package("typer"),
)
EXTRAS = (
    Extra("app", ("gradio",), "mobilesam app"),
    Extra("openvino", ("openvino", "nncf"), "mobilesam quantize --backend openvino, --providers OpenVINO, .xml files"),
    Extra("tracking", ("tensorboard",), "the tensorboard/ folder of mobilesam train"),
    Extra("wandb", ("wandb",), "train.loggers: [wandb]"),
    Extra("mlflow", ("mlflow",), "train.loggers: [mlflow]"),
)
_STAND_INS = {
    "mlflow": ("mlflow-skinny",),
    "opencv-python-headless": ("opencv-python", "opencv-contrib-python", "opencv-contrib-python-headless"),
    "onnxruntime": ("onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino"),
}
"""Other builds of a package, which serve as well."""


def version_of(distribution: str) -> str | None:
    """What is installed of a package, or of another build of it; None if nothing is."""
    for name in (distribution, *_STAND_INS.get(distribution, ())):
        try:
            found = importlib.metadata.version(name)
        except Exception:  # missing, or metadata that cannot be read, which is no better
            continue
        if found:
            return found if name == distribution else f"{found} ({name})"
    return None
