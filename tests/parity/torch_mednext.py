"""A torch MedNeXt for comparison, written from the published description.

Names of parameters and modules are those of `nnunet_mednext`, so that its state dict is
what an original checkpoint holds; `mednext_test.py` compares it with MONAI's network.
Also run by `tests/benchmarks/bench_mednext.py` as torch's side.
"""

import math
import zlib

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

SIZES = {  # expansions and blocks of enc 0-3, bottleneck, dec 3-0
    "S": ([2] * 9, [2] * 9),
    "B": ([2, 3, 4, 4, 4, 4, 4, 3, 2], [2] * 9),
    "M": ([2, 3, 4, 4, 4, 4, 4, 3, 2], [3, 4, 4, 4, 4, 4, 4, 4, 3]),
    "L": ([3, 4, 8, 8, 8, 8, 8, 4, 3], [3, 4, 8, 8, 8, 8, 8, 4, 3]),
}


class Block(nn.Module):
    """Depthwise convolution, norm of each channel, and an inverted bottleneck."""

    def __init__(self, channels, expansion, kernel, outputs=None):
        super().__init__()
        hidden, outputs = expansion * channels, outputs or channels
        self.conv1 = self.depthwise(channels, kernel)
        self.norm = nn.GroupNorm(channels, channels)
        self.conv2 = nn.Conv3d(channels, hidden, 1)
        self.conv3 = nn.Conv3d(hidden, outputs, 1)

    def depthwise(self, channels, kernel):
        half = tuple(k // 2 for k in kernel)
        return nn.Conv3d(channels, channels, kernel, padding=half, groups=channels)

    def changed(self, x):
        return self.conv3(functional.gelu(self.conv2(self.norm(self.conv1(x)))))

    def forward(self, x):
        return x + self.changed(x)


class DownBlock(Block):
    """Its depthwise convolution and the 1x1 of its residual have the stride."""

    def __init__(self, channels, expansion, kernel, stride):
        self.stride = stride
        super().__init__(channels, expansion, kernel, 2 * channels)
        self.res_conv = nn.Conv3d(channels, 2 * channels, 1, stride)

    def depthwise(self, channels, kernel):
        half = tuple(k // 2 for k in kernel)
        return nn.Conv3d(channels, channels, kernel, self.stride, half, groups=channels)

    def forward(self, x):
        return self.res_conv(x) + self.changed(x)


class UpBlock(Block):
    """Transposed; the missing planes are zeros before the first."""

    def __init__(self, channels, expansion, kernel, stride):
        self.stride = stride
        super().__init__(channels, expansion, kernel, channels // 2)
        self.res_conv = nn.ConvTranspose3d(channels, channels // 2, 1, stride)

    def depthwise(self, channels, kernel):
        half = tuple(k // 2 for k in kernel)
        return nn.ConvTranspose3d(
            channels, channels, kernel, self.stride, half, groups=channels
        )

    def forward(self, x):
        low = [(s - 1, 0) for s in reversed(self.stride)]
        pad = [n for pair in low for n in pair]
        return functional.pad(self.res_conv(x), pad) + functional.pad(
            self.changed(x), pad
        )


class Head(nn.Module):
    def __init__(self, channels, outputs):
        super().__init__()
        self.conv_out = nn.ConvTranspose3d(channels, outputs, 1)

    def forward(self, x):
        return self.conv_out(x)


class MedNeXt(nn.Module):
    """Images [b c x y z] to logits, or to a list of them under deep supervision."""

    def __init__(
        self,
        size,
        kernel_size=3,
        in_channels=1,
        out_channels=6,
        channels=32,
        strides=((2, 2, 2),) * 4,
        kernels=None,
        deep_supervision=False,
        remat=False,
    ):
        super().__init__()
        expansions, counts = SIZES[size]
        kernels = kernels or ((kernel_size,) * 3,) * 5
        width = [channels << level for level in range(5)]
        self.deep_supervision, self.remat = deep_supervision, remat

        def stage(level, index):
            blocks = [
                Block(width[level], expansions[index], kernels[level])
                for _ in range(counts[index])
            ]
            return nn.Sequential(*blocks)

        self.stem = nn.Conv3d(in_channels, channels, 1)
        for i in range(4):
            self.add_module(f"enc_block_{i}", stage(i, i))
            down = DownBlock(width[i], expansions[i + 1], kernels[i], strides[i])
            self.add_module(f"down_{i}", down)
        self.bottleneck = stage(4, 4)
        for i in (3, 2, 1, 0):
            up = UpBlock(width[i + 1], expansions[8 - i], kernels[i], strides[i])
            self.add_module(f"up_{i}", up)
            self.add_module(f"dec_block_{i}", stage(i, 8 - i))
        for i in range(5 if deep_supervision else 1):
            self.add_module(f"out_{i}", Head(width[i], out_channels))
        self.dummy_tensor = nn.Parameter(torch.ones(1))

    def run(self, module, x):
        for part in module if isinstance(module, nn.Sequential) else [module]:
            if self.remat and torch.is_grad_enabled():
                x = checkpoint(part, x, use_reentrant=False)
            else:
                x = part(x)
        return x

    def forward(self, x):
        x, skips = self.stem(x), []
        for i in range(4):
            skips.append(self.run(getattr(self, f"enc_block_{i}"), x))
            x = self.run(getattr(self, f"down_{i}"), skips[-1])
        features = [self.run(self.bottleneck, x)]
        for i in (3, 2, 1, 0):
            x = self.run(getattr(self, f"up_{i}"), features[0]) + skips[i]
            features.insert(0, self.run(getattr(self, f"dec_block_{i}"), x))
        heads = 5 if self.deep_supervision else 1
        logits = [getattr(self, f"out_{i}")(features[i]) for i in range(heads)]
        return logits if self.deep_supervision else logits[0]


def fill(module):
    """Overwrites every parameter with random values that depend on its name alone.

    Norm scales are 1 + 0.3 v, other vectors 0.1 v, kernels v / sqrt(inputs), v standard
    normal: nothing is left at a default that could hide a mistake. Returns the module.
    """
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            shape = tuple(parameter.shape)
            draw = np.random.default_rng(zlib.crc32(name.encode()))
            v = draw.standard_normal(math.prod(shape), np.float32).reshape(shape)
            if name.endswith("norm.weight"):
                v = 1 + np.float32(0.3) * v
            elif len(shape) == 1:
                v = np.float32(0.1) * v
            else:
                v = v / np.float32(math.sqrt(math.prod(shape[1:])))
            parameter.copy_(torch.from_numpy(v))
    return module


def arrays(module):
    """The state dict as numpy arrays."""
    return {name: value.numpy() for name, value in module.state_dict().items()}
