"""The numbers a model is run in."""

from __future__ import annotations

from typing import Literal

Precision = Literal["32", "bf16"]
"""float32, or bfloat16: faster where the processor has it, and not exact."""
