"""A degradation is declared once; help, checks, text and mixtures follow from the declaration."""

from collections.abc import Iterator

import pytest
import torch
from torch import Generator, Tensor

from vrdir.degradations import Draws, Parameter, Place, Single, apply_degradation, degradation
from vrdir.degradations.declaration import DEGRADATIONS, SYNONYMS, can_meet
from vrdir.degradations.mixture import degrade_mixture
from vrdir.degradations.registry import find, suggestion
from vrdir.degradations.steps import at_severity, check_steps, parse_degradations
from vrdir.errors import InputError


@pytest.fixture
def stripes() -> Iterator[str]:
    """A degradation of this test, which is forgotten afterwards."""
    before, synonyms = dict(DEGRADATIONS), dict(SYNONYMS)

    @degradation(
        "stripes",
        Place.PIXELS,
        formula="`I = J - s`",
        synonyms=("banding",),
        never_with=("jpeg",),
        depth=Parameter(
            0.1,
            0.5,
            bounds=(0, 1),
            about="s, how dark",
            severities=(0.1, 0.2, 0.3, (0.4, 0.5), 0.6),
            milder=(0.1, 0.2),
        ),
        every=Single(2, bounds=(1, 10), about="rows between stripes", whole=True),
    )
    def stripes(image: Tensor, draws: Draws) -> Tensor:
        """Darken rows: `I = J - s`."""
        dark = image.clone()
        dark[:, :, :: draws.value("every")] -= draws.parameter("depth")
        return dark

    yield "stripes"
    for table, old in ((DEGRADATIONS, before), (SYNONYMS, synonyms)):
        table.clear()
        table.update(old)  # type: ignore[arg-type]


def test_new_degradation_is_applied_and_reported(stripes: str) -> None:
    image = torch.full((2, 3, 8, 8), 0.9)
    degraded = apply_degradation(image, stripes, Generator().manual_seed(1), severity=3)
    assert degraded.parameters["depth"].tolist() == pytest.approx([0.3, 0.3])
    assert degraded.image[:, :, 1::2].eq(0.9).all()
    assert degraded.image[:, :, ::2].allclose(torch.tensor(0.6))
    assert find(stripes).summary == "Darken rows: `I = J - s`."


def test_new_degradation_has_its_place_in_the_physical_order(stripes: str) -> None:
    names = list(DEGRADATIONS)
    assert names.index("low_resolution") < names.index(stripes) < names.index("low_light")


def test_new_degradation_can_be_mixed(stripes: str) -> None:
    image = torch.full((8, 3, 8, 8), 0.9)
    names = ("noise", stripes)
    mixture = degrade_mixture(image, {"mixed": 1.0}, names, Generator().manual_seed(0))
    assert mixture.present.all()
    assert not can_meet(stripes, "jpeg")
    assert not can_meet("jpeg", stripes)


def test_text_and_severities_follow_from_the_declaration(stripes: str) -> None:
    (step,) = parse_degradations("stripes:depth=0.2..0.3,every=3")
    assert step.ranges == {"depth": (0.2, 0.3), "every": 3}
    assert at_severity(stripes, 4) == {"depth": (0.4, 0.5)}
    assert suggestion("banding") == "; did you mean stripes?"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stripes:depth=2", "depth must be between 0 and 1, not 2"),
        ("stripes:depth=0.5..0.1", "depth must go from low to high"),
        ("stripes:every=0", "every must be between 1 and 10"),
        ("stripes:every=1.5", "stripes:every must be one whole number"),
        ("stripes:width=3", "stripes accepts depth=0.1..0.5, every=2, or severity=1 to 5"),
    ],
)
def test_checks_follow_from_the_declaration(stripes: str, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_steps(parse_degradations(text))


def test_five_severities_are_required() -> None:
    four = Parameter(0, 1, bounds=(0, 1), about="x", severities=(0.1, 0.2, 0.3, 0.4))
    with pytest.raises(ValueError, match="odd.x has 4 severities, not 5"):
        degradation("odd", Place.AIR, x=four)
    assert "odd" not in DEGRADATIONS


def test_name_of_another_degradation_is_rejected() -> None:
    with pytest.raises(ValueError, match="noise is already declared in vrdir.degradations.noise"):

        @degradation("noise", Place.NOISE)
        def noise(image: Tensor, draws: Draws) -> Tensor:
            return image


def test_values_are_checked_before_anything_is_drawn() -> None:
    generator = Generator().manual_seed(7)
    state = generator.get_state()
    with pytest.raises(InputError, match="mist must be between 0 and 20, not 21"):
        DEGRADATIONS["rain"](torch.zeros(1, 3, 4, 4), generator, mist=21)
    assert torch.equal(generator.get_state(), state)
