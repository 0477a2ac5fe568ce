"""torch's side of `bench.py`: training steps and forward passes of the same MedNeXt.

The twin of `tests/parity`, each block computed again as the original's
`outside_block_checkpointing` does, float16 autocast, gradients scaled and clipped, fused AdamW,
contiguous: its better layout. Eager first, then compiled. There is no augmentation in its step.
"""

import argparse
import pathlib
import sys
import time

import torch
import turns
from torch.nn import functional

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "parity"))
from torch_mednext import MedNeXt


def training(run, network, images, device):
    """One step, as a function that has finished when it returns."""
    on_gpu = device == "cuda"
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=on_gpu)
    scaler = torch.amp.GradScaler(device, enabled=on_gpu)
    targets = (
        torch.rand(len(images), 6, *images.shape[2:], device=device) > 0.5
    ).half()

    def once():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.float16 if on_gpu else torch.bfloat16):
            logits = run(images)
        loss = functional.binary_cross_entropy_with_logits(
            logits.float(), targets.float()
        )
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        if on_gpu:
            torch.cuda.synchronize()

    return once


def prediction(run, images, device):
    def once():
        kind = torch.float16 if device == "cuda" else torch.bfloat16
        with torch.inference_mode(), torch.autocast(device, kind):
            run(images)
        if device == "cuda":
            torch.cuda.synchronize()

    return once


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("step", "forward"))
    parser.add_argument("--size", default="L")
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--remat", default="block")
    parser.add_argument("--repeat", type=int, default=8)
    a = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    again = a.remat != "none" and a.what == "step"
    network = MedNeXt(a.size, channels=a.channels, remat=again).to(device)
    # Of the original, for checkpoints by torch; no gradient reaches it.
    network.dummy_tensor.requires_grad_(False)
    images = torch.rand(a.batch, 1, *(a.side,) * 3, device=device)
    for kind in ("eager", "compiled"):
        run = network if kind == "eager" else torch.compile(network, dynamic=False)
        if a.what == "step":
            once = training(run, network, images, device)
        else:
            once = prediction(run, images, device)
        row = {"what": f"torch {a.what}", "size": a.size, "side": a.side}
        row |= {"batch": a.batch, "kernels": kind, "remat": a.remat if again else ""}
        if kind == "compiled":
            start = time.time()
            once()
            row["compiled"] = start, time.time()
        turns.wait()
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        row |= turns.milliseconds(once, a.repeat)
        if device == "cuda":
            row["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
        row["windows_per_s"] = round(1e3 * a.batch / row["ms"], 2)
        turns.say(**row, versions=f"torch {torch.__version__}")


if __name__ == "__main__":
    main()
