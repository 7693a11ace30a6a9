"""Names of weights: on disk always the official ones, in memory those of the blocks we build on.

One table, read in both directions. Prompt encoder, decoder and necks are named alike.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

_ENCODER = "image_encoder."

# (official, ours) beginnings of image encoder keys; the first that fits is replaced. MobileSAM counts a patch
# merging with the stage it ends, ours, like timm, with the stage it begins.
_BEGINNINGS = (
    ("patch_embed.seq.0.", "patch_embed.conv1."),
    ("patch_embed.seq.2.", "patch_embed.conv2."),
    *((f"layers.{stage}.downsample.", f"stages.{stage + 1}.downsample.") for stage in range(3)),
    ("layers.", "stages."),
)
# (official, ours) parts further inside, by what our key begins with.
_INNER = {
    "patch_embed.": ((".c.", ".conv."),),
    "stages.": ((".c.", ".conv."),),
    "blocks.": ((".mlp.lin1.", ".mlp.fc1."), (".mlp.lin2.", ".mlp.fc2.")),
}


def our_key(official: str) -> str:
    """The name in our modules of a weight that the official file calls ``official``."""
    if not official.startswith(_ENCODER):
        return official
    key = official.removeprefix(_ENCODER)
    for theirs, ours in _BEGINNINGS:
        if key.startswith(theirs):
            key = ours + key.removeprefix(theirs)
            break
    for theirs, ours in _inner_pairs(key):
        key = key.replace(theirs, ours)
    return _ENCODER + key


def official_key(ours: str) -> str:
    """The name in an official file of the weight that our modules call ``ours``."""
    if not ours.startswith(_ENCODER):
        return ours
    key = ours.removeprefix(_ENCODER)
    for theirs, mine in _inner_pairs(key):
        key = key.replace(mine, theirs)
    for theirs, mine in _BEGINNINGS:
        if key.startswith(mine):
            key = theirs + key.removeprefix(mine)
            break
    return _ENCODER + key


def to_ours(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of an official file, with our names."""
    return {our_key(key): value for key, value in state.items()}


def to_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of one of our models, with the official names."""
    return {official_key(key): value for key, value in state.items()}


def _inner_pairs(our_beginning: str) -> tuple[tuple[str, str], ...]:
    return next((pairs for start, pairs in _INNER.items() if our_beginning.startswith(start)), ())
