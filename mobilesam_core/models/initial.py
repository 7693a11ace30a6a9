"""What random weights begin with, so that training from nothing finds prompts and masks soon.

Any checkpoint overwrites all of it. Measured in ``docs/recipe.md``.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from mobilesam_core.models.attention import Attention
from mobilesam_core.models.mask_decoder import MaskDecoder
from mobilesam_core.models.prompt_encoder import PromptEncoder

FOREGROUND_PRIOR = 0.12
"""The probability that every mask pixel starts with: about the share of the image that an object covers."""
POSITION_GAIN = 2.0
"""How much larger than usual the query and key projections of the decoder's cross-attentions start."""
POSITION_FREQUENCY = 0.5
"""Standard deviation of the frequencies of positions; SAM's own 1 is slower to learn what a box means."""


@torch.no_grad()
def initialise_from_scratch(prompt_encoder: PromptEncoder, decoder: MaskDecoder) -> None:
    """Make a randomly initialised decoder look where its prompt points, and expect small masks.

    - Positions vary slowly (:data:`POSITION_FREQUENCY`), so that neighbours look alike.
    - Queries and keys of the attentions between tokens and image start with the same projection. Both sides carry
      Fourier features of their position, whose dot product falls off with distance: so from the first step a token
      reads the image around its point, and the image around it hears of the token. With independent projections
      prompts hardly influence the masks for hundreds of steps.
    - All mask logits start around the logit of :data:`FOREGROUND_PRIOR` (the idea of Lin et al., "Focal Loss for
      Dense Object Detection", 2017, §4.1). A mask head has no bias, so one of its channels starts as a constant.
    """
    prompt_encoder.pe_layer.positional_encoding_gaussian_matrix.mul_(POSITION_FREQUENCY)
    for attention in _cross_attentions(decoder):
        attention.q_proj.weight.mul_(POSITION_GAIN)
        attention.k_proj.weight.copy_(attention.q_proj.weight)
    last = decoder.output_upscaling[3]
    assert isinstance(last, nn.ConvTranspose2d) and last.bias is not None
    last.weight[:, 0] = 0
    last.bias[0] = 1
    constant = 0.5 * (1 + math.erf(math.sqrt(0.5)))  # Gelu of 1
    logit = math.log(FOREGROUND_PRIOR / (1 - FOREGROUND_PRIOR))
    for mlp in decoder.output_hypernetworks_mlps:
        final = mlp.layers[-1]  # type: ignore[index]
        assert isinstance(final, nn.Linear)
        final.weight[0] = 0
        final.bias[0] = logit / constant


def _cross_attentions(decoder: MaskDecoder) -> list[Attention]:
    transformer = decoder.transformer
    found = [transformer.final_attn_token_to_image]
    for layer in transformer.layers:
        found += [layer.cross_attn_token_to_image, layer.cross_attn_image_to_token]
    return found
