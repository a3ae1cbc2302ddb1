"""A vision-language model of transformers in this process."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from insvie_lightning.errors import InputError, first_line
from insvie_lightning.judges.asked import Asked
from insvie_lightning.judges.reply import Reply
from insvie_lightning.nets.hub import model_folder
from insvie_lightning.nets.sharing import place

_FILES = ("*.json", "*.safetensors", "*.jinja", "*.txt", "*.model")


class LocalModel:
    """Any image-text-to-text model that transformers itself knows; code that comes with weights is never run.

    Args:
        model: A folder, or a hub id.
        device: Where it runs; None is the process's GPU, or else the CPU.
        max_tokens: Of a reply.
    """

    def __init__(self, model: str, device: str | None = None, max_tokens: int = 256) -> None:
        self.model = model
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.max_tokens = max_tokens
        self._loaded: tuple[Any, Any] | None = None
        self._lock = threading.Lock()  # one reply at a time

    @property
    def identity(self) -> dict[str, Any]:
        """The model's name; of a folder its full path."""
        return {"model": str(Path(self.model).resolve()) if Path(self.model).is_dir() else self.model}

    def check(self) -> None:
        """Load the model.

        Raises:
            InputError: There is none, or transformers does not know it.
        """
        with self._lock:
            self._load()

    @torch.inference_mode()
    def reply(self, question: Asked[Any], earlier: tuple[tuple[str, str], ...] = ()) -> Reply:
        """Generate the likeliest reply; see `judge.VisionLanguageModel`.

        Raises:
            InputError: As `check`.
        """
        messages = [_message("system", question.system), _message("user", *question.content)]
        for text, complaint in earlier:
            messages += [_message("assistant", text), _message("user", complaint)]
        with self._lock:
            processor, model = self._load()
            inputs = processor.apply_chat_template(
                messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
            ).to(model.device, dtype=model.dtype)
            made = model.generate(
                **inputs, max_new_tokens=self.max_tokens, do_sample=False, temperature=None, top_p=None, top_k=None
            )
        prompt_tokens = inputs["input_ids"].shape[1]
        tokens = made[0, prompt_tokens:]
        text = processor.batch_decode([tokens], skip_special_tokens=True)[0]
        return Reply(text, prompt_tokens, len(tokens), cut=len(tokens) >= self.max_tokens)

    def _load(self) -> tuple[Any, Any]:
        """Processor and model, in the type of the weights on a GPU and in float32 on a CPU."""
        if self._loaded is None:
            from transformers import AutoModelForImageTextToText, AutoProcessor

            folder = model_folder(self.model, _FILES, "name the folder as the judge's `model`")
            dtype = torch.float32 if self.device == "cpu" else "auto"
            try:
                processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
                model = AutoModelForImageTextToText.from_pretrained(
                    folder, dtype=dtype, trust_remote_code=False, use_safetensors=True
                )
            except (OSError, ValueError, KeyError) as error:
                raise InputError(
                    f"{self.model} cannot be loaded as an image-text-to-text model of transformers, which a judge "
                    f"needs: {first_line(error)}"
                ) from error
            self._loaded = processor, place(model.eval().requires_grad_(False), self.device)
        return self._loaded


def _message(role: str, *parts: str | np.ndarray) -> dict[str, Any]:
    """A message of texts and frames 3 H W."""
    content: list[dict[str, Any]] = []
    for part in parts:
        if isinstance(part, str):
            content.append({"type": "text", "text": part})
        else:
            content.append({"type": "image", "image": Image.fromarray(part.transpose(1, 2, 0))})
    return {"role": role, "content": content}
