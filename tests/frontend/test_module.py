"""A restored module behaves as the recogniser does: gradients, dtypes, state, export, signature."""

import copy
import inspect
import io
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tests.frontend.recognisers import MEAN, STD, HuggingFaceModel, Seen, classifier, normalised
from torch import Tensor, nn

import vrdir
from vrdir.model.vrdir import VRDIR, Restoration


def test_methods_that_bypass_the_restoration_raise(tiny: VRDIR) -> None:
    model = vrdir.restore_before(Seen(), tiny)
    assert model.names == {0: "cat"}
    with pytest.raises(
        AttributeError,
        match=r"Seen.features would bypass the restoration; .* \.recogniser\.features",
    ):
        _ = model.features
    with pytest.raises(AttributeError, match="nothing_like_it"):
        _ = model.nothing_like_it


def test_gradients_reach_the_input_and_the_restorer_only_when_asked(
    tiny: VRDIR, photo_batch: Tensor
) -> None:
    model = vrdir.restore_before(classifier(), tiny).train()
    assert model.recogniser.training
    assert not any(m.training for m in model.front_end.modules())
    image = photo_batch.clone().requires_grad_()
    model(image).sum().backward()
    assert image.grad is not None
    assert image.grad.abs().max() > 0
    assert all(p.grad is None for p in tiny.parameters())
    assert all(p.grad is not None for p in model.recogniser.parameters())

    function = vrdir.restore_before(lambda images: images.square(), tiny, device="cpu")
    image.grad = None
    function(image).sum().backward()
    assert image.grad is not None

    model = vrdir.restore_before(classifier(), tiny, train_restorer=True).train()
    assert all(m.training for m in model.front_end.modules())
    model(photo_batch).sum().backward()
    trained = [name for name, p in tiny.named_parameters() if p.grad is not None]
    assert any(name.startswith("decoder") for name in trained)
    assert any(name.startswith("enhancement") for name in trained)
    assert not any(name.startswith("extractor") for name in trained)


def test_half_changes_only_the_recogniser(tiny: VRDIR, photo_batch: Tensor) -> None:
    precise = {name: t.clone() for name, t in tiny.state_dict().items()}
    model = vrdir.restore_before(classifier(), tiny, mean=MEAN, std=STD)
    expected = model(normalised(photo_batch))
    found = model.half()(normalised(photo_batch).half())
    assert found.dtype == torch.float16
    torch.testing.assert_close(found.float(), expected, atol=5e-3, rtol=0)
    assert {p.dtype for p in model.recogniser.parameters()} == {torch.float16}
    assert all(torch.equal(t, precise[name]) for name, t in tiny.state_dict().items())
    moved = model.to("meta")
    assert {p.device.type for p in moved.parameters()} == {"meta"}


def test_autocast_changes_only_the_recogniser(tiny: VRDIR, photo_batch: Tensor) -> None:
    seen: list[Restoration] = []
    types: list[torch.dtype] = []
    recogniser = classifier()
    recogniser[0].register_forward_hook(lambda module, given, answer: types.append(answer.dtype))
    model = vrdir.restore_before(recogniser, tiny, mean=MEAN, std=STD, hook=seen.append)
    images = normalised(photo_batch).requires_grad_()
    model(images)
    eight_bit = (photo_batch[0] * 255).byte()
    restored = [
        vrdir.Restorer(tiny, "cpu")(eight_bit),
        vrdir.Restore(tiny, "cpu")(eight_bit),
        model.front_end(eight_bit),
    ]
    for half in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", half):
            model(images).float().sum().backward()
            again = [
                vrdir.Restorer(tiny, "cpu")(eight_bit),
                vrdir.Restore(tiny, "cpu")(eight_bit),
                model.front_end(eight_bit),
            ]
        assert torch.equal(seen[-2].image, seen[0].image)
        assert seen[-2].image.dtype == torch.float32
        assert all(map(torch.equal, again, restored))
    assert types == [torch.float32, torch.bfloat16, torch.float16]


def test_state_copies_and_pickles(tiny: VRDIR, photo_batch: Tensor) -> None:
    model = vrdir.restore_before(classifier(), tiny)
    expected = model(photo_batch)
    other = vrdir.restore_before(nn.Sequential(*classifier()), VRDIR(tiny.config))
    assert not torch.equal(other(photo_batch), expected)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(photo_batch), expected)
    assert {key.split(".")[0] for key in model.state_dict()} == {"recogniser", "front_end"}
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(again(photo_batch), expected)
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    assert buffer.tell() > 0


def test_composite_can_be_exported(tiny: VRDIR) -> None:
    model = vrdir.restore_before(classifier(), tiny, mean=MEAN, std=STD)
    images = torch.rand(5, 3, 48, 64)
    with torch.no_grad():
        batch = torch.export.Dim("batch", min=1, max=64)
        exported = torch.export.export(
            model, (normalised(images[:2]),), dynamic_shapes=({0: batch},)
        )
        for count in (1, 5):
            torch.testing.assert_close(
                exported.module()(normalised(images[:count])), model(normalised(images[:count]))
            )
    skipping = vrdir.restore_before(classifier(), tiny, skip_clean=True)
    with pytest.raises(RuntimeError, match="skip_clean depends on the image's content"):
        torch.export.export(skipping, (images,))


def test_composite_can_be_exported_for_any_size(tiny: VRDIR) -> None:
    model = vrdir.restore_before(classifier(), tiny, mean=MEAN, std=STD)
    images = normalised(torch.rand(3, 3, 131, 75))
    sizes = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    with torch.no_grad():
        example = images[:2, :, :45, :70].contiguous()
        exported = torch.export.export(model, (example,), dynamic_shapes=(sizes,)).module()
        for rows, columns in ((45, 70), (64, 64), (131, 75), (9, 75)):
            view = images[:, :, :rows, :columns]
            torch.testing.assert_close(exported(view), model(view), atol=1e-4, rtol=1e-4)


def test_compiled_recognisers_and_traces(tiny: VRDIR, photo_batch: Tensor) -> None:
    recogniser = classifier()
    model = vrdir.restore_before(recogniser, tiny)
    with torch.no_grad():
        expected = model(photo_batch)
        kinds: list[Any] = [torch.jit.script(recogniser), torch.fx.symbolic_trace(recogniser)]
        kinds.append(torch.jit.trace(recogniser, photo_batch))
        for one in kinds:
            torch.testing.assert_close(vrdir.restore_before(one, tiny)(photo_batch), expected)
        torch.testing.assert_close(torch.jit.trace(model, photo_batch)(photo_batch), expected)
        graph = torch.fx.symbolic_trace(nn.Sequential(model.front_end, recogniser))
        torch.testing.assert_close(graph(photo_batch), expected)
        torch.testing.assert_close(graph(photo_batch[:, :, :40]), model(photo_batch[:, :, :40]))


class Labelling(HuggingFaceModel):
    """A model with other arguments before and after the image."""

    def forward(  # type: ignore[override]
        self, input_ids: Any = None, pixel_values: Tensor | None = None, *, labels: Any = None
    ) -> Any:
        return pixel_values, labels


def test_signature_is_the_recognisers(tiny: VRDIR, photo_batch: Tensor) -> None:
    model = vrdir.restore_before(Labelling(), tiny)
    names = ["input_ids", "pixel_values", "labels"]
    assert list(inspect.signature(model.forward).parameters) == names
    # Hugging Face's Trainer reads the signature of the class.
    assert list(inspect.signature(type(model).forward).parameters) == ["self", *names]
    assert inspect.signature(model.forward) == inspect.signature(model.recogniser.forward)
    plain = vrdir.restore_before(Seen(), tiny)
    assert list(inspect.signature(plain.forward).parameters) == ["images", "rest"]
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert list(inspect.signature(type(again).forward).parameters) == ["self", *names]
        assert isinstance(again, type(model).__mro__[1])
    # As torch.nn.DataParallel makes replicas
    assert type(model._replicate_for_data_parallel()) is type(model)
    seen, labels = model(None, photo_batch, labels=7)  # by position, but not the first
    torch.testing.assert_close(seen, tiny(photo_batch))
    assert labels == 7


def test_state_can_be_saved_as_safetensors(
    tiny: VRDIR, photo_batch: Tensor, tmp_path: Path
) -> None:
    model = vrdir.restore_before(classifier(), tiny)
    expected = model(photo_batch)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    other = vrdir.restore_before(classifier(), VRDIR(tiny.config))
    assert other.load_state_dict(load_file(tmp_path / "model.safetensors")).missing_keys == []
    torch.testing.assert_close(other(photo_batch), expected)
    network: Any = vrdir.Restorer(tiny, "cpu").model
    save_file(network.state_dict(), tmp_path / "network.safetensors")
    state = model.state_dict(keep_vars=True)
    assert all(state[name] is parameter for name, parameter in model.named_parameters())


def test_threads_may_share_a_composite(tiny: VRDIR, photo_batch: Tensor) -> None:
    model = vrdir.restore_before(classifier(), tiny, skip_clean=True)
    batches = [photo_batch[:, :, : 30 + 4 * i] for i in range(8)]
    with torch.no_grad():
        expected = [model(batch) for batch in batches]

        def work(batch: Tensor) -> Tensor:
            with torch.no_grad():  # the setting is per thread
                return model(batch)

        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(work, batches * 2))
    for mine, theirs in zip(found, expected * 2, strict=True):
        assert torch.equal(mine, theirs)


def test_restorer_gives_its_network_and_settings(tiny: VRDIR) -> None:
    skipping = vrdir.Restorer(tiny, "cpu", skip_clean=0.5)
    assert vrdir.restore_before(Seen(), skipping).front_end.skip_clean == 0.5
    assert vrdir.restore_before(Seen(), skipping, skip_clean=False).front_end.skip_clean is False
    assert vrdir.restore_before(Seen(), tiny).front_end.skip_clean is False
    with pytest.raises(
        ValueError,
        match="a front-end computes in float32, but this Restorer in bf16",
    ):
        vrdir.restore_before(Seen(), vrdir.Restorer(tiny, "cpu", precision="bf16"))


def test_restorer_follows_its_network(tiny: VRDIR, photo: Image.Image) -> None:
    restorer = vrdir.Restorer(copy.deepcopy(tiny), "cpu")
    vrdir.restore_before(Seen(), restorer).to("meta")
    assert restorer.device.type == "meta"
    for build in (
        lambda net: vrdir.restore_before(Seen(), net),
        lambda net: vrdir.Restorer(net, "cpu"),
    ):
        with pytest.raises(
            ValueError, match="the network contains parameters in float16; convert it to float32"
        ):
            build(copy.deepcopy(tiny).half())
