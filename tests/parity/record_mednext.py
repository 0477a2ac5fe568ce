"""Records small outputs and gradients of the torch twin for the tests that have no torch.

python tests/parity/record_mednext.py      (writes tests/nisbjax/models/recorded/*.npz)

Weights and image follow the rule of `tests/nisbjax/models/conftest.py`. The objective is
the sum over heads i of logits_i * default_rng(99 + i).standard_normal(logits_i.shape),
channels first. Kept are every fourth voxel of the logits and of the gradient by the image,
and the L2 norm of the gradient by each parameter, in the order of their names.
"""

import json
import pathlib

import numpy as np
import torch
import torch_mednext

FOLDER = pathlib.Path(__file__).parents[1] / "nisbjax" / "models" / "recorded"
CASES = {
    "M_k3": {"size": "M", "kernel_size": 3, "channels": 4},
    "L_k5": {"size": "L", "kernel_size": 5, "channels": 4},
    "S_uneven": {
        "size": "S",
        "in_channels": 2,
        "out_channels": 3,
        "channels": 4,
        "strides": [[1, 2, 2], [1, 2, 2], [2, 2, 2], [2, 2, 2]],
        "kernels": [[1, 3, 3], [1, 5, 5], [3, 3, 3], [3, 3, 7], [3, 3, 3]],
        "deep_supervision": True,
    },
}


def record(arguments):
    network = torch_mednext.fill(torch_mednext.MedNeXt(**arguments))
    shape = (1, arguments.get("in_channels", 1), 32, 32, 32)
    image = np.random.default_rng(1234).random(shape, np.float32)
    x = torch.from_numpy(image).requires_grad_()
    pyramid = network(x)
    pyramid = pyramid if isinstance(pyramid, list) else [pyramid]
    objective = torch.zeros(())
    for i, logits in enumerate(pyramid):
        r = np.random.default_rng(99 + i).standard_normal(logits.shape, np.float32)
        objective = objective + (logits * torch.from_numpy(r)).sum()
    objective.backward()
    norms = {
        name: parameter.grad.double().norm().item()
        for name, parameter in network.named_parameters()
        if parameter.grad is not None
    }
    found = {
        f"logits_{i}": logits.detach().numpy()[:, :, ::4, ::4, ::4]
        for i, logits in enumerate(pyramid)
    }
    found["objective"] = objective.detach().numpy()
    found["input_gradient"] = x.grad.numpy()[:, :, ::4, ::4, ::4]
    found["gradient_norms"] = np.array([norms[name] for name in sorted(norms)])
    return found


def main():
    FOLDER.mkdir(exist_ok=True)
    for name, arguments in CASES.items():
        path = FOLDER / f"{name}.npz"
        np.savez(path, arguments=json.dumps(arguments), **record(arguments))
        print(f"{path}: {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
