"""The proof: figures, intervals and verdicts from trials."""

import numpy as np
import pytest

from vrdir.adaptation.proof import AFTER, BEFORE, Trial, joined, proof_of


def trials(
    kind: str, before: float, after: float, psnr: float = 30.0, lost: float = 0.0, count: int = 40
) -> list[Trial]:
    """Return trials of which shares of `before` and `after` agree, most of them in both."""
    return [
        Trial(
            kind,
            number,
            0.0,
            {BEFORE: float(number < before * count), AFTER: float(number < after * count)},
            {BEFORE: psnr, AFTER: psnr - lost},
        )
        for number in range(count)
    ]


def test_significant_gain_passes_the_proof() -> None:
    proof = proof_of([*trials("haze", 0.5, 0.8), *trials("clean", 1, 1, 50)], ["haze"], "top-1")
    together = proof.together
    assert together.before.value == pytest.approx(50)
    assert together.gain.value == pytest.approx(30)
    # The interval is that of the 40 differences, of which 12 are 1 and the others 0.
    differences = np.array([0.0] * 28 + [1.0] * 12)
    drawn = np.random.default_rng(1).choice(differences, (4000, 40)).mean(1) * 100
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert together.gain.low == pytest.approx(low, abs=3)
    assert together.gain.high == pytest.approx(high, abs=3)
    assert proof.paid
    assert proof.verdict().startswith("Adaptation helps")
    assert [row[0] for row in proof.rows()] == ["haze", "clean", "together"]


def test_insignificant_gain_fails_the_proof() -> None:
    proof = proof_of([*trials("haze", 0.5, 0.525), *trials("clean", 1, 1)], ["haze"], "top-1")
    assert not proof.paid
    assert "no significant gain" in proof.verdict()


@pytest.mark.parametrize(
    "worse",
    [trials("noise", 0.8, 0.5), trials("noise", 0.8, 0.8, lost=0.5), trials("clean", 1, 0.7)],
)
def test_gain_with_other_harm_fails_the_proof(worse: list[Trial]) -> None:
    proof = proof_of([*trials("haze", 0.5, 0.8), *worse], ["haze"], "top-1")
    assert proof.together.gained
    assert proof.harmed == [worse[0].kind]
    assert not proof.paid
    assert "other results become worse: " in proof.verdict()
    assert f"on {proof.photos} held-out photos: 50.0 -> 80.0 % (+30.0" in proof.verdict()
    assert worse[0].kind in proof.verdict()


def test_weather_of_each_photo_is_combined() -> None:
    both = [*trials("haze", 0, 1), *trials("rain", 1, 1)]
    proof = proof_of(both, ["haze", "rain"], "top-1")
    assert proof.together.gain.value == pytest.approx(50)
    assert proof.together.gain.low == pytest.approx(50)  # every photo gained a half
    assert proof.figures()["together"]["gain"][0] == pytest.approx(50)


def test_trials_of_two_networks_are_joined() -> None:
    first, second = trials("haze", 0.5, 0.5), trials("haze", 0.5, 1)
    second = [one._replace(agreement={AFTER: one.agreement[AFTER]}) for one in second]
    proof = proof_of(joined(first, second), ["haze"], "top-1")
    assert proof.together.after.value == pytest.approx(100)
    assert proof.together.before.value == pytest.approx(50)
