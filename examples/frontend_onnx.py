"""An ONNX Runtime session: `run` as before, with the image among its inputs restored.

pip install onnxruntime
python examples/frontend_onnx.py MODEL.onnx [--white 255]
"""

from __future__ import annotations

import argparse

import numpy as np
import onnxruntime

import vrdir


def main() -> None:
    """Run the model on random pixels, and print the shapes of its outputs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="with one image input, float32 (B, 3, H, W), RGB")
    parser.add_argument("--white", type=float, default=1, help="the value of white in that input")
    parser.add_argument(
        "--side", type=int, default=224, help="height and width in pixels, if the model takes any"
    )
    arguments = parser.parse_args()
    plain = onnxruntime.InferenceSession(arguments.model, providers=["CPUExecutionProvider"])
    session = vrdir.restore_before(plain, range=arguments.white)
    name = session.input_name
    shape = next(i.shape for i in session.get_inputs() if i.name == name)
    height, width = (size if isinstance(size, int) else arguments.side for size in shape[2:])
    image = np.random.default_rng(0).random((1, 3, height, width), np.float32) * arguments.white
    for output, values in zip(session.get_outputs(), session.run(None, {name: image}), strict=True):
        print(output.name, values.shape)


if __name__ == "__main__":
    main()
