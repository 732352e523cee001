"""Networks: pure functions of tensors, with no knowledge of files, the Hub or logging."""

from torch import nn

from speakup.networks.denoiser import BandMixer
from speakup.networks.upsampler import BandExtender

ARCHITECTURES: dict[str, type[nn.Module]] = {
    "band-mixer": BandMixer,
    "band-extender": BandExtender,
}
"""Architecture name in a model's config.json -> class built from its hyperparameters."""
