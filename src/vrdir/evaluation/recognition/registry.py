"""The recognition tasks: the modules of `vrdir.evaluation.recognition.tasks`."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from vrdir.errors import InputError
from vrdir.evaluation.recognition import tasks
from vrdir.evaluation.recognition.task import RecognitionTask


def task_names() -> list[str]:
    """Return the names of all tasks, in alphabetical order."""
    return sorted(module.name for module in iter_modules(tasks.__path__))


def find_task(name: str) -> RecognitionTask[Any, Any, Any]:
    """Return the task of a name.

    Raises:
        InputError: there is no such task.
    """
    if name not in task_names():
        raise InputError(f"unknown task {name!r}; choose one of {', '.join(task_names())}")
    module = import_module(f"{tasks.__name__}.{name}")
    for found in vars(module).values():
        # Python 3.10 treats `list[int]` as a class, but type() does not.
        is_task = issubclass(type(found), type) and issubclass(found, RecognitionTask)
        if is_task and found.__module__ == module.__name__:
            return found()
    raise TypeError(f"{module.__name__} contains no subclass of RecognitionTask")
