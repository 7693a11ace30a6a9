"""At the end of a training: does finding everything still work, and by which thresholds?"""

from __future__ import annotations

from mobilesam_core.checkpoints.loading import open_checkpoint
from mobilesam_core.checkpoints.thresholds import suggest_thresholds, suggests_thresholds
from mobilesam_core.data.tiles import BusiestTiles
from mobilesam_core.errors import Interrupted
from mobilesam_core.evaluation.thresholds import choose_thresholds
from mobilesam_core.interrupt import StopRequest
from mobilesam_core.ops.tiles import Tiling
from mobilesam_core.runtime.torch_runtime import TorchRuntime
from mobilesam_core.training.run import Run


def check_everything(run: Run, stop: StopRequest) -> None:
    """Let ``best`` and ``last`` suggest the thresholds by which the best weights find everything, unless they do; log
    and tell. Of several processes the first does it.

    Raises:
        Interrupted: a stop was requested; the weights are as they were.
    """
    images, files = run.config.train.validation.everything, (run.folder.best, run.folder.last)
    if run.log is None or run.sets.val is None or not images or all(suggests_thresholds(file) for file in files):
        return

    def check_stop() -> None:
        if stop.requested:
            raise Interrupted(
                f"Interrupted after the last step: {run.folder.path} holds its weights, which suggest no thresholds "
                "for amg yet.",
                "Run the same command with --resume for that.",
            )

    # As a file, since that may be rounded, and since the run may have gone on from its best weights.
    best = open_checkpoint(run.folder.best).model.to(run.fabric.device)
    tiling = Tiling.of(run.config.data)
    source = run.sets.val if tiling is None else BusiestTiles(run.sets.val, tiling)
    choice = choose_thresholds(TorchRuntime(best), source, images, run.reporter, check_stop)
    if choice is None:
        return
    epoch = run.position.best_epoch or run.position.epoch
    # First: once the files suggest thresholds, a resumed run does not look again.
    run.log.write("everything", run.position.step, epoch, choice.to_values())
    for file in files:
        suggest_thresholds(file, choice.best.thresholds)
    run.reporter.info(
        f"Everything in {'' if tiling is None else 'a tile of each of '}{choice.images} validation images "
        f"({choice.objects} objects), by {choice.best.sentence}; "
        + ("the usual thresholds stay." if choice.best == choice.usual else f"by the usual {choice.usual.sentence}.")
    )
