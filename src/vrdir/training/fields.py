"""How settings are declared, checked and listed."""

from __future__ import annotations

import json
import math
import re
import reprlib
from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from vrdir.errors import SettingsError
from vrdir.model.config import VRDIRConfig


class Settings(BaseModel):
    """Settings that are frozen, and in which an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _duration(value: Any) -> Any:
    match = re.fullmatch(r"\s*(\d+)\s+epochs?\s*", value) if isinstance(value, str) else None
    if match and int(match[1]):
        return f"{int(match[1])} epochs"
    if type(value) is not int or value < 1:
        raise SettingsError(
            'must be a number of steps, 1 or more, or of epochs as in "10 epochs", '
            f"not {reprlib.repr(value)}"
        )
    return value


Count = Annotated[int, Field(ge=1, strict=True)]
Duration = Annotated[int | str, BeforeValidator(_duration)]
"""Optimiser steps; or epochs, as in "10 epochs"."""


class Setting(NamedTuple):
    """One setting of a recipe.

    Attributes:
        key: such as "decoder.steps".
        description: its meaning.
        default: as YAML; "" for a required setting.
    """

    key: str
    description: str
    default: str


def described(settings: type[BaseModel], prefix: str = "") -> Iterator[Setting]:
    """Yield every setting of a class and of the classes inside it, in order.

    `model` is a setting itself too, since it may be a name. Descriptions are read from the fields,
    not from docstrings: Python 3.13 dedents those, and `python -OO` drops them.
    """
    for name, field in settings.model_fields.items():
        parts = (field.annotation, *get_args(field.annotation))
        # On Python 3.10 a list[int] is an instance of type, too.
        classes = [part for part in parts if isinstance(part, type) and not get_args(part)]
        inner = next((part for part in classes if issubclass(part, BaseModel)), None)
        if inner is None or inner is VRDIRConfig:
            default = "" if field.is_required() else json.dumps(field.default)
            yield Setting(prefix + name, field.description or "", default)
        if inner is not None:
            yield from described(inner, f"{prefix}{name}.")


def steps_in(duration: int | str, epoch_length: int, batch_size: int) -> int:
    """Return the steps of a duration, for an epoch of `epoch_length` images."""
    if isinstance(duration, int):
        return duration
    return max(1, math.ceil(int(duration.split()[0]) * epoch_length / batch_size))
