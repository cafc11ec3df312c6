"""Trains the demo's CLIP tokenizer: byte-pair encoding over the captions, in CLIP's published layout.

Ids, in order: the 256 byte symbols, the same with `</w>`, one entry per merge, `<|startoftext|>`, `<|endoftext|>`.
The folder holds vocab.json, merges.txt, tokenizer_config.json and special_tokens_map.json, as every published
Stable Diffusion pipeline does.

    python experiments/demo/tokenizer.py --data DIR -o DIR
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from pathlib import Path
from typing import Iterable

from data import replace_text, to_json

START, END = "<|startoftext|>", "<|endoftext|>"
MAX_LENGTH = 77
# CLIP's pattern for ASCII text, which is all that the captions hold.
WORD = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[a-z]+|[0-9]|[^\sa-z0-9]+")


def byte_symbols() -> list[str]:
    """Returns CLIP's 256 byte symbols in vocabulary order: printable bytes first, then the remapped ones."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(256 - len(printable))]


def merge_word(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    """Joins every occurrence of `pair` in `word`, left to right."""
    out: list[str] = []
    for symbol in word:
        # A symbol that was just made by a join may not join again: "aaa" becomes "aa" "a".
        if out and (out[-1], symbol) == pair:
            out[-1] = "".join(pair) + "\0"
        else:
            out.append(symbol)
    return tuple(symbol.rstrip("\0") for symbol in out)


def learn_merges(captions: Iterable[str], limit: int) -> list[tuple[str, str]]:
    """Learns merges until every word is one symbol, or `limit` is reached."""
    counts = Counter(word for text in captions for word in WORD.findall(text.lower()))
    words = {tuple(word[:-1]) + (word[-1] + "</w>",): count for word, count in counts.items()}
    merges: list[tuple[str, str]] = []
    while len(merges) < limit:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, count in words.items():
            for pair in zip(word, word[1:]):
                pairs[pair] += count
        if not pairs:
            break
        # Ties go to the smaller pair, or the order would depend on the hash of the dictionary.
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        words = {merge_word(word, best): count for word, count in words.items()}
    return merges


def write_tokenizer(folder: Path, merges: list[tuple[str, str]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    symbols = byte_symbols()
    entries = [*symbols, *(s + "</w>" for s in symbols), *("".join(pair) for pair in merges), START, END]
    vocabulary = {entry: i for i, entry in enumerate(entries)}
    if len(vocabulary) != len(entries):
        raise ValueError("two merges make the same symbol; the ids would not follow the ranks")

    def token(content: str) -> dict[str, object]:
        return {"content": content, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}

    special = {"bos_token": token(START), "eos_token": token(END), "unk_token": token(END)}
    config = {name: {"__type": "AddedToken", **value} for name, value in special.items()} | {
        "add_prefix_space": False,
        "do_lower_case": True,
        "errors": "replace",
        "model_max_length": MAX_LENGTH,
        "pad_token": END,
        "tokenizer_class": "CLIPTokenizer",
    }
    replace_text(folder / "vocab.json", json.dumps(vocabulary, ensure_ascii=False) + "\n")
    replace_text(folder / "merges.txt", "#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    replace_text(folder / "special_tokens_map.json", to_json(special | {"pad_token": END}))
    replace_text(folder / "tokenizer_config.json", to_json(config))


def build_tokenizer(data: Path, folder: Path, limit: int = 200) -> int:
    """Trains on the captions of the train split and returns the size of the vocabulary."""
    lines = (data / "train" / "metadata.jsonl").read_text().splitlines()
    merges = learn_merges((json.loads(line)["text"] for line in lines), limit)
    write_tokenizer(folder, merges)
    return 512 + len(merges) + 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder written by data.py")
    parser.add_argument("--merges", type=int, default=200, metavar="N", help="at most this many (default %(default)s)")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    args = parser.parse_args()
    print(f"{args.output}: {build_tokenizer(args.data, args.output, args.merges)} entries")


if __name__ == "__main__":
    main()
