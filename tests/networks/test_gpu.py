"""What can be told of a GPU without one: that no network mixes its tensors with the CPU's.

torch works out shapes and devices of tensors that hold no numbers; an operation whose tensors lie
on different devices is refused there as it would be on the GPU.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from speakup.models.catalogue import find_card
from speakup.networks import ARCHITECTURES, spectra

pytestmark = [
    pytest.mark.skipif(torch.version.cuda is None, reason="this torch was built without CUDA"),
    pytest.mark.filterwarnings("ignore:Accessing the data pointer"),
]

NAMES = ("speakup-denoise-16k", "speakup-upsample-44k", "mp-senet-dns", "metricgan-plus")
"""The others make tensors that need their numbers, or ask for the driver (recurrent layers)."""


@pytest.fixture
def no_numbers() -> Iterator[None]:
    spectra._window.cache_clear()
    with FakeTensorMode(), torch.inference_mode():
        yield
    spectra._window.cache_clear()


def on_gpu(network: nn.Module) -> nn.Module:
    """Do what `network.to("cuda")` does, which takes no tensors without numbers."""
    for module in network.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            module.register_parameter(name, nn.Parameter(weight.to("cuda"), requires_grad=False))
        for name, buffer in list(module.named_buffers(recurse=False)):
            module.register_buffer(name, buffer.to("cuda"))
    return network


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("no_numbers")
def test_all_that_a_network_makes_lies_on_its_device(name: str) -> None:
    card = find_card(name)
    assert card is not None
    network = on_gpu(ARCHITECTURES[card.architecture](**card.hyperparameters).eval())
    rows = torch.zeros(3, 2 * card.sample_rate, device="cuda")
    inputs = [rows]
    if card.task == "upsample":
        inputs.append(torch.full((3,), 8_000.0, device="cuda"))
    result = network(*inputs)
    assert (result.device.type, len(result)) == ("cuda", 3)


@pytest.mark.usefixtures("no_numbers")
def test_a_mixture_would_be_found() -> None:
    layer = on_gpu(nn.Linear(4, 4))
    with pytest.raises(RuntimeError, match="device"):
        layer(torch.zeros(1, 4))
