#!/usr/bin/env python3
"""Writes corpus/: a few small inputs for each fuzz target, good ones and near misses. Needs nothing but Python."""

import json
import shutil
import struct
import sys
import zlib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
import published_unets  # noqa: E402

CORPUS = Path(__file__).resolve().parent / "corpus"

SD1 = {"_class_name": "UNet2DConditionModel", "_diffusers_version": "0.30.0", "sample_size": 64, "in_channels": 4}
SD1 |= {"block_out_channels": [320, 640, 1280, 1280], "cross_attention_dim": 768, "attention_head_dim": 8, "act_fn": "silu"}
SD1 |= {"layers_per_block": 2, "norm_num_groups": 32, "norm_eps": 1e-05, "center_input_sample": False, "freq_shift": 0}
SDXL = {"_class_name": "UNet2DConditionModel"} | published_unets.SDXL
DDPM = published_unets.DDPM | {"in_channels": 3, "out_channels": 3}
SMALL = {"_class_name": "UNet2DConditionModel", "block_out_channels": [32, 64], "cross_attention_dim": 16, "sample_size": [8, 16]}
SMALL |= {"down_block_types": ["CrossAttnDownBlock2D", "ResnetDownsampleBlock2D"], "layers_per_block": [1, 2]}
SMALL |= {"up_block_types": ["ResnetUpsampleBlock2D", "CrossAttnUpBlock2D"], "transformer_layers_per_block": [[2], [1, 1]]}
SMALL |= {"reverse_transformer_layers_per_block": [[1, 1, 1], [2, 1]], "mid_block_type": None, "class_embed_type": "timestep"}
SMALL |= {"class_embeddings_concat": True, "time_cond_proj_dim": 8, "resnet_time_scale_shift": "scale_shift", "act_fn": "gelu"}


def text(value):
    return json.dumps(value, separators=(",", ":")).encode()


def json_seeds():
    yield "types", b'{"steps": 1, "a": [1, -2, 3.5, 1e3, true, false, null, "\\u00fc\\ud83d\\ude00", {}, []], "b": {"c": "d"}}'
    yield "setting", b"train.optimizer.learning_rate=1e-4"
    yield "limits", b"[9223372036854775807, -9223372036854775808, 18446744073709551615, 2147483648, 5e-324, 1.7976931348623157e308]"
    yield "broken", b'{"a": 1, "a": 2, "x": [1e999, "\xc3", '
    yield "deep", b"[" * 130 + b"]" * 130


def safetensors(header, data):
    header = header if isinstance(header, bytes) else text(header)
    return struct.pack("<Q", len(header)) + header + data


def entry(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def safetensors_seeds():
    metadata = {"format": "pt"}
    good = {"__metadata__": metadata, "conv.weight": entry("F32", [2, 3], 0, 24), "mask": entry("BOOL", [5, 1], 24, 29)}
    yield "good", safetensors(good, bytes(range(29)))
    yield "all_types", safetensors(
        {t: entry(t, [1], 8 * i, 8 * i + 8) for i, t in enumerate(("I64", "U64", "F64"))} | {"e": entry("F8_E4M3", [0, 3], 24, 24), "s": entry("BF16", [], 24, 26)}, bytes(26)
    )
    yield "empty", safetensors(b"{}", b"")
    yield "hole", safetensors({"a": entry("U8", [2], 1, 3)}, bytes(3))
    yield "overlap", safetensors({"a": entry("U8", [2], 0, 2), "b": entry("U8", [2], 1, 3)}, bytes(3))
    yield "overflow", safetensors({"a": entry("F32", [2**32, 2**32], 0, 0), "b": entry("I16", [-1], 0, 2)}, b"")
    yield "truncated", safetensors(good, bytes(range(20)))


def config_seeds():
    for name, config in (("sd1", SD1), ("sdxl", SDXL), ("ddpm", DDPM), ("small", SMALL)):
        yield name, text(config)
    yield "unknown", text(SD1 | {"": 1, "brand_new": 2, "conv_in_kernel": 5, "num_class_embeds": 10})


def removed(*layers):
    return [{"layer": layer, "how": how} for layer, how in layers]


def spec_seeds():
    bypass, drop = "bypass", "drop"
    first = [("down_blocks.0.resnets.1", bypass), ("mid_block.attentions.0.transformer_blocks.0", bypass)]
    yield "bypass", b"\0" + text({"removed": removed(*first), "shell": "keep", "timesteps": [0, 500]})
    tiny = [("down_blocks.3", drop), ("mid_block", drop), ("up_blocks.0", drop)]
    tiny += [(f"{side}_blocks.{i}.resnets.1", drop) for side, i in (("down", 0), ("down", 1), ("down", 2), ("up", 1), ("up", 2), ("up", 3))]
    yield "bk_tiny", b"\0" + text({"removed": removed(*tiny), "made_by": {"criterion": "preset"}})
    parts = [("down_blocks.2.attentions.0", bypass), ("up_blocks.0.attentions.1.transformer_blocks.2.attn1", bypass)]
    yield "shells", b"\1" + text({"removed": removed(*parts, ("up_blocks.2.resnets.0", bypass))})
    yield "ddpm", b"\2" + text({"removed": removed(("down_blocks.1.attentions.1", bypass), ("mid_block.resnets.1", bypass))})
    small = {"format": "laptopdiff.spec/1", "base": {"class": "UNet2DConditionModel", "config": SMALL, "weights_sha256": "00"}}
    yield "whole", b"\0" + text(small | {"removed": removed(("down_blocks.0.attentions.0.transformer_blocks.1", bypass))})
    halves = [small | {"removed": [], "timesteps": [0, 500]}, small | {"removed": [], "timesteps": [500, 1000]}]
    yield "set", b"\0" + text({"format": "laptopdiff.spec-set/1", "students": halves})
    yield "twice", b"\0" + text({"removed": removed(*first, *first), "totals": {"params": {"base": 1}}})


START, END = "<|startoftext|>", "<|endoftext|>"


def tokenizer(**files):
    names = ("tokenizer_json", "vocab", "merges", "config", "special", "added", "text")
    pieces = [files.get(name, b"") for name in names]
    return b"\0".join(piece if isinstance(piece, bytes) else text(piece) for piece in pieces)


def tokenizer_seeds():
    vocabulary = {token: i for i, token in enumerate(("a", "b", "c</w>", "ab", "abc</w>", "!", START, END))}
    merges = b"#version: 0.2\na b\nab c</w>\n"
    special = {"bos_token": START, "eos_token": {"content": END, "normalized": True}, "unk_token": END, "pad_token": "!"}
    prompt = "ABC it's 10\u00bd <|endoftext|> \u00c9t\u00e9 \u0130 abc".encode()
    yield "pair", tokenizer(vocab=vocabulary, merges=merges, special=special, config={"model_max_length": 12}, text=prompt)
    yield "added", tokenizer(vocab=vocabulary, merges=merges, added={"<cat>": 8, "<CAT toy>": 9}, text=b"a <cat> toy <cat toy>")
    model = {"type": "BPE", "end_of_word_suffix": "</w>", "unk_token": END, "vocab": vocabulary, "merges": ["a b", ["ab", "c</w>"]]}
    tokens = [{"id": 6, "content": START, "special": True}, {"id": 8, "content": "<x>", "normalized": True}]
    yield "json", tokenizer(tokenizer_json={"model": model, "added_tokens": tokens}, text=prompt)
    decoder = {"7": {"content": END, "special": True, "lstrip": False}, "8": {"content": "<y>", "normalized": False}}
    yield "decoder", tokenizer(vocab=vocabulary, merges=merges, config=special | {"added_tokens_decoder": decoder, "model_max_length": 1e30}, text=b"abc<y>abc")
    yield "text", tokenizer(text="a\u0301 \u4e2d\u6587 123 don't!! <|ENDOFTEXT|> \U0001f600".encode())
    yield "bad_utf8", tokenizer(text=b"abc \xed\xa0\x80 \xff")
    yield "wrong", tokenizer(vocab=vocabulary, merges=b"a b\na b\nx y\n", config={"model_max_length": 1})


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width, height, depth, colour, rows, *chunks, interlace=0):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def image_seeds():
    yield "rgb", png(3, 2, 8, 2, b"".join(bytes([f, *range(9)]) for f in (1, 4)))
    yield "grey16", png(2, 2, 16, 0, b"\0abcd\2efgh", chunk(b"gAMA", struct.pack(">I", 45455)))
    yield "palette", png(4, 2, 2, 3, b"\0\x1b\0\xe4", chunk(b"PLTE", bytes(range(12))), chunk(b"tRNS", b"\x80"))
    yield "rgba", png(1, 2, 8, 6, b"\0abcd\0efgh", chunk(b"tEXt", b"Comment\0hello"))
    yield "interlaced", png(3, 3, 8, 0, b"".join(b"\0" + bytes(n) for n in (1, 1, 2, 1, 1, 3)), interlace=1)
    yield "one_bit", png(9, 2, 1, 0, b"\0\xaa\x80\0\x55\0", chunk(b"zTXt", b"Title\0\0" + zlib.compress(bytes(500))))
    yield "claims_much", png(100_000, 100_000, 8, 2, bytes(100))
    good = png(1, 1, 8, 0, b"\0a")
    yield "exif_of_a_gigabyte", good[:33] + struct.pack(">I", 1 << 30) + b"eXIf" + good[33:]
    yield "truncated", png(3, 2, 8, 2, bytes(20))[:-20]


def main():
    shutil.rmtree(CORPUS, ignore_errors=True)
    seeds = {"json": json_seeds, "safetensors": safetensors_seeds, "config": config_seeds, "spec": spec_seeds}
    seeds |= {"tokenizer": tokenizer_seeds, "image": image_seeds}
    for target, make in seeds.items():
        folder = CORPUS / target
        folder.mkdir(parents=True)
        for name, content in make():
            (folder / name).write_bytes(content)


if __name__ == "__main__":
    main()
