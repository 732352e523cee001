"""Networks: pure functions of tensors, with no knowledge of files, the Hub or logging."""

from collections.abc import Callable

from speakup.networks.band_memory import BandMemory
from speakup.networks.contract import Denoiser, StatefulDenoiser, Upsampler
from speakup.networks.denoiser import BandMixer
from speakup.networks.hifigan_denoiser import HiFiGANDenoiser
from speakup.networks.published.ap_bwe import APBWE
from speakup.networks.published.deepfilternet3 import DeepFilterNet3
from speakup.networks.published.dpdfnet import DPDFNet
from speakup.networks.published.lavasr import LavaSR
from speakup.networks.published.metricgan_plus import MetricGANPlus
from speakup.networks.published.mp_senet import MPSENet
from speakup.networks.source_filter import SourceFilterExtender
from speakup.networks.upsampler import BandExtender

DENOISERS: dict[str, Callable[..., Denoiser | StatefulDenoiser]] = {
    "band-mixer": BandMixer,
    "band-memory": BandMemory,
    "mp-senet": MPSENet,
    "dpdfnet": DPDFNet,
    "deepfilternet3": DeepFilterNet3,
    "metricgan-plus": MetricGANPlus,
    "hifi-gan-denoiser": HiFiGANDenoiser,
}
UPSAMPLERS: dict[str, Callable[..., Upsampler]] = {
    "band-extender": BandExtender,
    "source-filter-extender": SourceFilterExtender,
    "lavasr": LavaSR,
    "ap-bwe": APBWE,
}
ARCHITECTURES = {**DENOISERS, **UPSAMPLERS}
"""Architecture name in a model's config.json -> what is built from its hyperparameters."""
