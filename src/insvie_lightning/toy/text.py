"""The words of the toy world: a word-level tokenizer and a tiny T5 encoder."""

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

from insvie_lightning.toy.scene import BACKGROUNDS, COLOURS, SHAPES, STYLES

MAX_TOKENS = 16
_SPECIAL = ("<pad>", "</s>", "<unk>")
_GLUE = """a add an and at background bottom camera centre change colour delete down in into it left make nothing of on
out pan remove replace right slowly the to top turn up video with zoom"""


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word; unknown words become `<unk>`, sequences end in `</s>` and are padded to 16 tokens."""
    words = (*_SPECIAL, *_GLUE.split(), *COLOURS, *SHAPES, *BACKGROUNDS, *STYLES)
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Lowercase(), normalizers.Replace(",", " "), normalizers.Replace(".", " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=MAX_TOKENS,
        padding_side="right",
    )


ORDER_SCALE = 32.0
"""Factor on T5's random position biases. As initialised they are so flat that the embedding of a word hardly depends
on its neighbours: "make the red circle blue" and "make the blue circle red" differ by 5 %. Scaled, every head looks at
a few offsets of its own and the two differ by 80 %."""


def build_text_encoder(vocabulary: int, width: int = 64, layers: int = 2, seed: int = 0) -> T5EncoderModel:
    """A T5 encoder with random weights and sharp position biases, meant to stay frozen.

    On this vocabulary a random encoder serves as well as a trained one, as long as words and their order survive it:
    the transformer that reads it does the rest.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = T5Config(
            vocab_size=vocabulary,
            d_model=width,
            d_kv=width // 4,
            d_ff=2 * width,
            num_layers=layers,
            num_heads=4,
            decoder_start_token_id=0,
        )
        encoder = T5EncoderModel(config).eval()
    with torch.no_grad():
        encoder.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight.mul_(ORDER_SCALE)
    return encoder
