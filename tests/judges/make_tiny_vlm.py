"""Make `tiny_vlm/`: a real Qwen2.5-VL of 0.17 M parameters that scores the last picture it sees by what is white.

    OMP_NUM_THREADS=1 python tests/judges/make_tiny_vlm.py

It answers `{"score": k}`: 1 for a black picture, one more for each of its quarters, as one reads, that is white. (Plain
brightness would not do: the network's first normalisation takes it away.) Every byte is a token, so its chat template
keeps only the last characters of each text. Two minutes on one core; the share of right answers is printed at the end.
"""

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from insvie_lightning.judges import QUALITY, TEMPORAL, TEXT, Question

FOLDER = Path(__file__).parent / "tiny_vlm"
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"]
SPECIAL += ["<|video_pad|>"]
COUNTS = [1, 2, 2, 2, 4]
REPLIES = ["I would rather not.", "Hm.", '{"sc']
TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message.role[0] }}
{%- if message.content is string -%}{{ message.content[-6:] }}
{%- else -%}
{%- for part in message.content -%}
{%- if part.type == 'text' -%}{{ part.text[-6:] }}
{%- else -%}<|vision_start|><|image_pad|><|vision_end|>{%- endif -%}
{%- endfor -%}
{%- endif -%}<|im_end|>
{%- endfor -%}
{%- if add_generation_prompt -%}<|im_start|>a{%- endif -%}"""


def make_processor() -> Qwen2_5_VLProcessor:
    names = [*sorted(ByteLevel.alphabet()), *SPECIAL]
    tokenizer = Qwen2Tokenizer(
        vocab={name: i for i, name in enumerate(names)},
        merges=[],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token="<|endoftext|>",
        additional_special_tokens=SPECIAL,
    )
    size = {"shortest_edge": 28 * 28, "longest_edge": 56 * 56}
    return Qwen2_5_VLProcessor(
        Qwen2VLImageProcessor(size=size), tokenizer, Qwen2VLVideoProcessor(size=size), chat_template=TEMPLATE
    )


def make_model(processor: Qwen2_5_VLProcessor) -> Qwen2_5_VLForConditionalGeneration:
    ids = {name: processor.tokenizer.convert_tokens_to_ids(name) for name in SPECIAL}
    text = {
        "vocab_size": len(processor.tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "pad_token_id": ids["<|endoftext|>"],
    }
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "out_hidden_size": 64,
        "fullatt_block_indexes": [1],
    }
    config = Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    return Qwen2_5_VLForConditionalGeneration(config)


def picture(answer: int, draw: random.Random) -> Image.Image:
    """A noisy black picture, of which the first `answer - 1` quarters, as one reads, are white."""
    noise = torch.randn(3, 56, 56, generator=torch.Generator().manual_seed(draw.randrange(2**31)))
    level = torch.full((1, 56, 56), 30.0 + draw.uniform(-20, 20))
    for quarter in range(answer - 1):
        row, column = 28 * (quarter // 2), 28 * (quarter % 2)
        level[:, row : row + 28, column : column + 28] = 225.0 + draw.uniform(-20, 20)
    pixels = (level + 5 * noise).clamp(0, 255).to(torch.uint8)
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


def conversation(draw: random.Random) -> tuple[list[dict[str, Any]], list[Image.Image], int]:
    """Messages as a judge sends them, their pictures and the right answer."""
    answer = draw.randint(1, 5)
    before, after = draw.choice(COUNTS), draw.choice(COUNTS)
    pictures = [picture(draw.randint(1, 5), draw) for _ in range(before + after - 1)] + [picture(answer, draw)]
    frames = np.stack([np.asarray(image).transpose(2, 0, 1) for image in pictures])
    question = Question(draw.choice([TEMPORAL, TEXT, QUALITY]), "", frames[:before], frames[before:])
    shown = question.content
    parts = [{"type": "text", "text": part} if isinstance(part, str) else {"type": "image"} for part in shown]
    messages = [{"role": "system", "content": question.prompt.system}, {"role": "user", "content": parts}]
    if draw.random() < 0.2:
        messages += [
            {"role": "assistant", "content": draw.choice(REPLIES)},
            {"role": "user", "content": question.form},
        ]
    return messages, pictures, answer


def batch(processor: Qwen2_5_VLProcessor, size: int, draw: random.Random) -> tuple[Any, torch.Tensor]:
    """Inputs and labels; the labels are the reply's tokens."""
    texts, pictures, answers = [], [], []
    for _ in range(size):
        messages, shown, answer = conversation(draw)
        reply = f'{{"score": {answer}}}<|im_end|>'
        texts.append(processor.apply_chat_template(messages, add_generation_prompt=True) + reply)
        pictures += shown
        answers.append(len(processor.tokenizer(reply).input_ids))
    inputs = processor(text=texts, images=pictures, padding=True, padding_side="right", return_tensors="pt")
    labels = torch.full_like(inputs.input_ids, -100)
    for row, (length, answer) in enumerate(zip(inputs.attention_mask.sum(1), answers, strict=True)):
        labels[row, length - answer : length] = inputs.input_ids[row, length - answer : length]
    return inputs, labels


@torch.inference_mode()
def right(model: Any, processor: Any, count: int = 100) -> float:
    """Share of right answers on pictures that were not trained on."""
    draw, found = random.Random(1), 0
    for _ in range(count):
        messages, pictures, answer = conversation(draw)
        text = processor.apply_chat_template(messages, add_generation_prompt=True)
        inputs = processor(text=[text], images=pictures, return_tensors="pt")
        made = model.generate(**inputs, max_new_tokens=16, do_sample=False)[0, inputs.input_ids.shape[1] :]
        found += processor.tokenizer.decode(made, skip_special_tokens=True) == f'{{"score": {answer}}}'
    return found / count


def main(steps: int = 1500) -> None:
    torch.manual_seed(0)
    draw = random.Random(0)
    processor = make_processor()
    model = make_model(processor).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps, pct_start=0.1)
    for step in range(steps):
        inputs, labels = batch(processor, 8, draw)
        loss = model(**inputs, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 100 == 0:
            print(step, round(loss.item(), 4), flush=True)
    model.eval()
    print("right answers:", right(model, processor))
    model.generation_config.eos_token_id = processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    model.generation_config.pad_token_id = processor.tokenizer.convert_tokens_to_ids("<|endoftext|>")
    model.save_pretrained(FOLDER)
    processor.save_pretrained(FOLDER)


if __name__ == "__main__":
    main()
