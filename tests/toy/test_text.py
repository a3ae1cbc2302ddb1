"""The toy tokenizer knows every word of the toy world; the text encoder tells sentences apart."""

from pathlib import Path

import torch
from transformers import AutoTokenizer

from insvie_lightning.toy.edits import example, wrong_instruction
from insvie_lightning.toy.scene import caption
from insvie_lightning.toy.text import MAX_TOKENS, build_text_encoder, build_tokenizer


def test_every_sentence_of_the_toy_world_fits() -> None:
    tokenizer = build_tokenizer()
    drawn = [example("train", index) for index in range(2000)]
    sentences = [sample.instruction for sample in drawn] + [wrong_instruction(sample) for sample in drawn]
    sentences += [caption(scene) for sample in drawn for scene in (sample.source, sample.edited)]
    for sentence in set(sentences):
        ids = tokenizer(sentence).input_ids
        assert tokenizer.unk_token_id not in ids, sentence
        assert len(ids) == len(sentence.split()) + 1 <= MAX_TOKENS, sentence
        assert ids[-1] == tokenizer.eos_token_id


def test_unknown_words_case_and_punctuation() -> None:
    tokenizer = build_tokenizer()
    assert tokenizer("Remove the RED circle.").input_ids == tokenizer("remove the red circle").input_ids
    assert tokenizer("remove the elephant").input_ids[2] == tokenizer.unk_token_id


def test_the_tokenizer_is_saved_and_read_back(tmp_path: Path) -> None:
    build_tokenizer().save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    batch = again(["make the red circle blue"], padding="max_length", max_length=16, truncation=True)
    assert batch == build_tokenizer()(
        ["make the red circle blue"], padding="max_length", max_length=16, truncation=True
    )


@torch.no_grad()
def test_the_encoder_is_always_the_same_and_sees_words_and_their_order() -> None:
    state = torch.random.get_rng_state()
    tokenizer = build_tokenizer()
    encoder, again = (build_text_encoder(len(tokenizer)) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), state) and not encoder.training

    def embed(sentence: str) -> torch.Tensor:
        return encoder(torch.tensor([tokenizer(sentence).input_ids]))[0]

    sentence = "replace the red circle with a blue square"
    assert torch.equal(embed(sentence), again(torch.tensor([tokenizer(sentence).input_ids]))[0])
    assert embed(sentence).shape == (1, 9, 64)
    swapped = embed("replace the blue circle with a red square")
    distance = (embed(sentence) - swapped)[0].norm(dim=1) / embed(sentence)[0].norm(dim=1)
    assert (distance > 0.1).all()  # of the two words that differ, and of those that only hear of it
