"""What ways of fine-tuning give for the same number of steps, on a validation set at its own resolution.

- `prompts`: a mix of boxes and points, boxes alone, and interactive training (first prompts, then corrective clicks),
  over several seeds; judged by boxes, one point, and clicks (IoU after one and three of them, NoC@85).
- `parts`: all weights, the decoder alone, adapters (LoRA) in all of it, and adapters in the encoder with a whole
  decoder; judged by boxes and one point, with memory and time.

Every run is a process of its own and uses one thread: two may run at once (`--at-once 2`) and each is timed alike.
Runs that are there already are not trained again.

    python benchmarks/finetune.py examples/configs/nuclei_nano_cpu.yaml prompts --seeds 3 --out runs/compare
    python benchmarks/finetune.py examples/configs/nuclei_nano_cpu.yaml parts --out runs/compare --json parts.json
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean, stdev
from typing import Any

BOXES = ("prompts.box=1", "prompts.point=0")
INTERACTIVE = ("prompts.rounds=3", "prompts.rounds_without_click=1")
LORA = "lora={rank: 8, full: []}"
LORA_AND_DECODER = "lora={rank: 8, full: [mask_decoder]}"
CASES: dict[str, dict[str, tuple[str, ...]]] = {
    "prompts": {
        "boxes and points": (),
        "boxes": BOXES,
        "interactive": INTERACTIVE,
    },
    "parts": {
        "all weights": (),
        "decoder": ("train.freeze.image_encoder=true", "train.cache.use=never"),
        "adapters": (LORA, "optim.lr=3e-3"),
        "adapters, decoder": (LORA_AND_DECODER,),
    },
}


def mobilesam(*arguments: str) -> Any:
    """The JSON that a command prints."""
    command = [sys.executable, "-m", "mobilesam_cli", *arguments, "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise SystemExit(ended.stderr)
    return json.loads(ended.stdout)


def run(config: str, case: str, name: str, seed: int, settings: Sequence[str], out: Path) -> dict[str, Any]:
    """Train, evaluate; or what was found before."""
    folder = out / "finetune" / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}"
    result, asked = folder / "result.json", {"config": config, "settings": list(settings)}
    if result.exists():
        found = json.loads(result.read_text())
        if found["asked"] != asked:
            raise SystemExit(f"{result} is of other settings: name another --out.")
        return found["values"]
    sets = (
        *settings,
        *(f"train.output_dir={out}", "train.project=finetune", f"train.run={folder.name}", f"train.seed={seed}"),
        *("train.threads=1", "train.validation.every=1000", "train.validation.before=false"),
        *("train.validation.everything=0", "data.workers=1"),
    )
    arguments = [part for each in sets for part in ("--set", each)]
    resume = ["--resume"] if (folder / "state.pt").exists() else []
    trained = mobilesam("train", config, *arguments, *resume)
    prompts = "box,point,clicks" if case == "prompts" else "box,point"
    (evaluated,) = mobilesam(
        "eval", str(folder / "last.safetensors"), "--config", str(folder / "config.yaml"), "--prompts", prompts
    )["checkpoints"]
    by_prompt = evaluated["prompts"]
    values = {
        "box": by_prompt["box"]["miou"],
        "point": by_prompt["point"]["miou"],
        "seconds": trained["seconds"],
        "memory_mb": trained["peak_memory_mb"],
    }
    if case == "prompts":
        clicks = by_prompt["clicks"]["clicks"]
        values |= {
            "1 click": clicks["iou_after"][0],
            "3 clicks": clicks["iou_after"][2],
            "NoC@85": clicks["noc"]["85"],
        }
    result.write_text(json.dumps({"asked": asked, "values": values}))
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True, help="where the runs go")
    parser.add_argument("--only", nargs="+", help="of the case, these runs")
    parser.add_argument("--set", action="append", default=[], help="for all runs alike, as of mobilesam train")
    parser.add_argument("--at-once", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    names = args.only or list(CASES[args.case])
    jobs = [(name, seed) for seed in range(args.seeds) for name in names]
    with ThreadPoolExecutor(args.at_once) as pool:
        found = list(
            pool.map(
                lambda job: run(args.config, args.case, *job, (*args.set, *CASES[args.case][job[0]]), args.out), jobs
            )
        )
    by_name = {
        name: [values for (other, _), values in zip(jobs, found, strict=True) if other == name] for name in names
    }
    keys = list(found[0])
    print(f"{'':20}" + "".join(f"{key:>18}" for key in keys))
    for name, runs in by_name.items():
        cells = []
        for key in keys:
            values = [each[key] for each in runs]
            spread = f" ± {stdev(values):.3f}" if len(values) > 1 else ""
            cells.append(f"{mean(values):.3f}{spread}" if abs(mean(values)) < 100 else f"{mean(values):.0f}")
        print(f"{name:20}" + "".join(f"{cell:>18}" for cell in cells))
    if args.json:
        args.json.write_text(json.dumps(by_name, indent=2))


if __name__ == "__main__":
    main()
