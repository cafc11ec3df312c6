"""Files made to hurt whoever reads them. Each function writes one and returns nothing; the tables say what it must be met with.

What tests/cli/test_bad_*.py has (truncated weights, a header that lies about its length, duplicate keys, pipes, shards
outside the folder) is not repeated here.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from pathlib import Path
from typing import Any, Callable

import small_models

Entry = dict[str, Any]


def entry(dtype: str, shape: list[int], begin: int, end: int) -> Entry:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def safetensors(header: dict[str, Any] | str | bytes, data: bytes = b"") -> bytes:
    text = header if isinstance(header, (bytes, str)) else json.dumps(header)
    text = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(text)) + text + data


def many_tensors(count: int) -> bytes:
    return safetensors("{" + ",".join(f'"t{i}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}' for i in range(count)) + "}")


def array_bomb(values: int) -> str:
    return "[" + "[]," * values + "[]]"


# name -> (bytes of the weights file, what the message says)
WEIGHTS: dict[str, tuple[Callable[[], bytes], str]] = {
    "shape_overflows": (lambda: safetensors({"a": entry("F32", [2**32, 2**32], 0, 0)}), "overflows"),
    "shape_wraps_to_its_offsets": (lambda: safetensors({"a": entry("F32", [2**62 + 1], 0, 4)}, bytes(4)), "overflows"),
    "negative_shape": (lambda: safetensors({"a": entry("F32", [-1, -4], 0, 16)}, bytes(16)), "negative size"),
    "absurd_rank": (lambda: safetensors({"a": entry("U8", [1] * 100_000, 0, 1)}, bytes(1)), "rank 100000"),
    "shape_is_not_the_bytes": (lambda: safetensors({"a": entry("F16", [3], 0, 12)}, bytes(12)), "needs 6 bytes"),
    "overlap": (lambda: safetensors({"a": entry("U8", [8], 0, 8), "b": entry("U8", [8], 4, 12)}, bytes(12)), "overlaps another"),
    "hole": (lambda: safetensors({"a": entry("U8", [8], 0, 8), "b": entry("U8", [8], 16, 24)}, bytes(24)), "a hole in the data"),
    "data_after_the_end": (lambda: safetensors({"a": entry("U8", [8], 0, 8)}, bytes(4096)), "the tensors cover 8"),
    "offsets_backwards": (lambda: safetensors({"a": entry("U8", [8], 8, 0)}, bytes(8)), "lie outside"),
    "offsets_beyond_64_bits": (lambda: safetensors('{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,18446744073709551617]}}', bytes(1)), "must be an integer"),
    "number_of_many_digits": (lambda: safetensors('{"a":{"dtype":"U8","shape":[' + "9" * 100_000 + '],"data_offsets":[0,1]}}', bytes(1)), "number overflow"),
    "same_tensor_twice": (lambda: safetensors('{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'), "duplicate key `a`"),
    "name_is_not_utf8": (lambda: safetensors(b'{"\xff\xfe":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'), "UTF-8"),
    "type_that_is_none": (lambda: safetensors({"a": entry("F" * 100_000, [1], 0, 1)}, bytes(1)), "is not supported"),
    "deep_header": (lambda: safetensors('{"a":' * 100_000 + "1" + "}" * 100_000), "nested deeper"),
    "header_of_arrays": (lambda: safetensors('{"a":' + array_bomb(5_000_000) + "}"), "more than 4194304 values"),
    "hundred_thousand_tensors": (lambda: many_tensors(100_000), "and "),
    "unknown_fields": (lambda: safetensors({"a": entry("U8", [0], 0, 0) | {f"k{i}": i for i in range(200_000)}}), "more"),
}  # fmt: skip

# name -> (config.json, what the message says); SD's own config where a dict is given
CONFIGS: dict[str, tuple[Callable[[], str | bytes | dict[str, Any]], str]] = {
    "more_blocks_than_can_run": (lambda: {"layers_per_block": 64, "transformer_layers_per_block": 256}, "ResNets and transformer blocks"),
    "work_beyond_64_bits": (lambda: {"sample_size": 1 << 20}, "is `sample_size` right?"),
    "kernel_of_a_million": (lambda: {"conv_in_kernel": 999_999}, "`conv_in_kernel`"),
    "widths_that_overflow": (lambda: {"block_out_channels": [2**31 - 1] * 4}, "block_out_channels"),
    "a_hundred_thousand_stages": (lambda: {"block_out_channels": [32] * 100_000}, "block_out_channels"),
    "array_bomb": (lambda: array_bomb(5_000_000), "more than 4194304 values"),
    "value_of_megabytes": (lambda: {"act_fn": "x" * 20_000_000}, "activation"),
    "text_without_end": (lambda: '{"_class_name": "' + "x" * 20_000_000, "missing closing quote"),
    "utf16": (lambda: '{"_class_name": "UNet2DModel"}'.encode("utf-16"), "not valid JSON"),
    "lone_surrogate": (lambda: '{"_class_name": "\\ud800"}', "not valid JSON"),
    "not_utf8": (lambda: b'{"_class_name": "\xc0\xaf"}', "not valid JSON"),
}  # fmt: skip


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, *chunks: bytes, rows: bytes = bytes(64), depth: int = 8, colour: int = 2) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


PICTURES: dict[str, tuple[Callable[[], bytes], str]] = {
    "claims_100000_x_100000": (lambda: png(100_000, 100_000), "100000 x 100000 is too large"),
    "claims_a_row_of_gigabytes": (lambda: png(2**31 - 1, 1, depth=16, colour=6), "is too large"),
    "claims_more_than_it_holds": (lambda: png(8192, 8192), "cannot hold 8192 x 8192 pixels"),
    "no_pixels": (lambda: png(0, 0), "not a whole PNG"),
    "chunk_of_2_gigabytes": (lambda: png(2, 2)[:33] + struct.pack(">I", 2**31 - 1) + b"IDAT" + bytes(10), "not a whole PNG"),
}  # fmt: skip

START, END = "<|startoftext|>", "<|endoftext|>"
Files = dict[str, "str | bytes"]


def vocabulary(extra: dict[str, int] | None = None) -> dict[str, int]:
    return {"a": 0, "b": 1, "ab": 2, "b</w>": 3, START: 512, END: 513} | (extra or {})


def pair(vocab: dict[str, int] | str | None = None, merges: str | bytes = "#version: 0.2\n", **more: Any) -> Files:
    vocab = vocabulary() if vocab is None else vocab
    text = vocab if isinstance(vocab, str) else json.dumps(vocab)
    return {"vocab.json": text, "merges.txt": merges} | {f"{name}.json": json.dumps(value) for name, value in more.items()}


TOKENIZERS: dict[str, tuple[Callable[[], Files], str]] = {
    "same_token_twice": (lambda: pair('{"a": 1, "a": 2}'), "duplicate key `a`"),
    "id_beyond_the_model": (lambda: pair(vocabulary({"a</w>": 2**31 - 1})), "2147483647"),
    "negative_id": (lambda: pair(vocabulary({"x": -1})), "-1 is not a token id"),
    "merge_of_unknown_tokens": (lambda: pair(merges="a zz\n"), "`zz`, which the vocabulary lacks"),
    "merge_of_three": (lambda: pair(merges="a b c\n"), "expected two tokens"),
    "merges_of_noise": (lambda: pair(merges=bytes(range(256)) * 1000), "merges.txt"),
    "no_start": (lambda: pair({"a": 0, END: 1}), "has no `<|startoftext|>`"),
    "a_hundred_thousand_added_tokens": (lambda: pair(added_tokens={f"<{i}>": i for i in range(100_000)}), "added tokens"),
    "length_that_is_no_number": (lambda: pair(tokenizer_config={"model_max_length": "long"}), "model_max_length"),
    "length_beyond_the_model": (lambda: pair(tokenizer_config={"model_max_length": 1_000_000}), "1000000"),
}  # fmt: skip


def cyclic_merges() -> Files:
    """`a b` becomes `ab`, which has the id of `a`: joining never runs out of pairs, only of symbols."""
    settings = {"tokenizer_config.json": json.dumps({"model_max_length": small_models.TOKENS})}
    return pair(vocabulary({"ab": 0}), merges="a b\na b\n" * 1000) | settings


def shard_index(folder: Path, shards: dict[str, str] | str) -> None:
    text = shards if isinstance(shards, str) else json.dumps({"metadata": {}, "weight_map": shards})
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(text)


def many_missing(folder: Path) -> None:
    shard_index(folder, {f"t{i}": "s.safetensors" for i in range(200_000)})
    (folder / "s.safetensors").write_bytes(safetensors({}))


def link(target: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        shard_index(folder, {"conv_in.weight": "s.safetensors"})
        os.symlink(target, folder / "s.safetensors")

    return make


# name -> (writes the index and what it names, what the message says)
SHARDS: dict[str, tuple[Callable[[Path], None], str]] = {
    "shard_is_a_loop": (link("s.safetensors"), "s.safetensors"),
    "shard_is_endless": (link("/dev/zero"), "not a regular file"),
    "shard_is_a_folder": (link("."), "not a regular file"),
    "shard_is_a_broken_link": (link("/nowhere/at/all"), "cannot read"),
    "two_hundred_thousand_tensors_missing": (many_missing, "and 199988 more"),
    "shard_is_the_index": (lambda f: shard_index(f, {"conv_in.weight": "diffusion_pytorch_model.safetensors.index.json"}), "index.json"),
    "name_with_a_nul": (lambda f: shard_index(f, {"conv_in.weight": "a\0b"}), ".index.json"),
    "name_of_a_megabyte": (lambda f: shard_index(f, {"conv_in.weight": "x" * 1_000_000}), ".index.json"),
    "name_with_a_backslash": (lambda f: shard_index(f, {"conv_in.weight": "..\\..\\x.safetensors"}), "cannot read"),
    "same_tensor_in_two_shards": (lambda f: shard_index(f, '{"weight_map": {"a": "x", "a": "y"}}'), "duplicate key `a`"),
}  # fmt: skip
