"""Features of a group of texts, computed once into a folder of arrays."""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from probing_examples import Group

from fairseq_lambda.files import whole_folder
from fairseq_lambda.inspection import Reader
from fairseq_lambda.inspection.lambdas import batches
from fairseq_lambda.inspection.reader import is_lambda_layer, reading
from fairseq_lambda.modules import LambdaBert

STORED = np.float16  # of features, which are of order 1 to 100; probes compute in float32


def untrained(reads: Reader, seed: int) -> Reader:
    """Return a model with the same options and new weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        core = LambdaBert(reads.core.options, lm_head=False)
    return replace(reads, core=core.to(reads.core.embed_tokens.weight.device).eval(), lm_head=None)


def key_of(reads: Reader, group: Group) -> str:
    """Return a hash of all that the features depend on: weights, options, texts."""
    digest = hashlib.sha256(json.dumps([group.texts, group.per_token, str(reads.core.options)]).encode())
    for name, tensor in sorted(reads.core.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def features(reads: Reader, group: Group, folder: Path, say: Callable[[str], None]) -> Path:
    """Return the folder with a group's features; compute them unless it exists.

    For texts: ``lambda`` (N, L, k v); ``values`` (N, L, v u), their mean over the tokens; ``mean`` (N, L + 1, C), the
    mean of the states; ``first`` (N, L + 1, C), the state of ``<s>``. For words: ``states`` (N, L + 1, C) and
    ``values``, both means over the word's pieces; ``offsets`` (texts,), the row of each text's first word. State 0 is
    the embeddings, state l + 1 the output of layer l; the lambda and the values of layer l come from state l. Softmax
    layers have neither.
    """
    folder = folder / f"{group.name}-{key_of(reads, group)}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, np.ndarray] = {}
    counts = [len(words) for words in group.texts] if group.per_token else [1] * len(group.texts)
    offsets = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
    with whole_folder(folder) as part:
        for done, rows, found in _read(reads, group):
            for name, values in found.items():
                if name not in arrays:
                    shape = (sum(counts), *values.shape[1:])
                    arrays[name] = np.lib.format.open_memmap(part / f"{name}.npy", "w+", STORED, shape)
                where = np.concatenate([np.arange(offsets[row], offsets[row] + counts[row]) for row in rows])
                arrays[name][where] = values.to(torch.float16).cpu().numpy()
            say(f"features of {group.name}: {done:,} of {len(group.texts):,} texts")
        for array in arrays.values():
            array.flush()
        arrays.clear()
        np.save(part / "offsets.npy", offsets)
    return folder


def _read(reads: Reader, group: Group) -> Iterator[tuple[int, list[int], dict[str, torch.Tensor]]]:
    """Yield (texts so far, rows, features of these rows)."""
    lambda_layers = [i for i, mixing in enumerate(reads.mixings) if is_lambda_layer(mixing)]
    caught: dict[int, torch.Tensor] = {}

    def hook_of(index):
        def hook(mixing, args):
            caught[index] = mixing.projections(args[0], args[1] if len(args) > 1 else None)[2].flatten(2)

        return hook

    hooks = [reads.mixings[i].register_forward_pre_hook(hook_of(i)) for i in lambda_layers]
    pieces = [_pieces(reads, words) for words in group.texts] if group.per_token else None
    texts = [ids for ids, _ in pieces] if pieces else group.texts
    try:
        for done, rows, batch in batches(reads, texts):
            tokens, padding = reads.padded(batch)
            with reading(reads.core):
                out = reads.core(tokens, padding, return_states=True, return_lambdas=True)
            states = torch.stack(out.states, 2)  # (b, n, L + 1, C)
            values = torch.stack([caught[i] for i in lambda_layers], 2) if lambda_layers else None  # (b, n, L, v u)
            if pieces:
                found = {"states": _words(states, rows, pieces)}
                if values is not None:
                    found["values"] = _words(values, rows, pieces)
            else:
                real = torch.ones_like(tokens, dtype=torch.bool) if padding is None else ~padding
                count = real.sum(1)[:, None, None]
                found = {"mean": (states * real[..., None, None]).sum(1) / count, "first": states[:, 0]}
                if values is not None:
                    found["values"] = values.sum(1) / count  # zero where padded
                    with_content = [out.lambdas[i] for i in lambda_layers if reads.mixings[i].k_proj is not None]
                    if with_content:
                        found["lambda"] = torch.stack(with_content, 1).flatten(2)
            yield done, rows, found
    finally:
        for handle in hooks:
            handle.remove()


def _pieces(reads: Reader, words: list[str]) -> tuple[torch.Tensor, list[int]]:
    """Return the ids of a sentence, with each word encoded separately, and the number of pieces in each word."""
    encoded = [reads.ids(word) for word in words]
    inner = [ids[1:-1] for ids in encoded]
    return torch.cat([encoded[0][:1], *inner, encoded[0][-1:]]), [len(ids) for ids in inner]


def _words(x: torch.Tensor, rows: list[int], pieces: list[tuple[torch.Tensor, list[int]]]) -> torch.Tensor:
    """Return the mean over each word's pieces, (words, layers, channels), of x (b, n, layers, channels)."""
    found = []
    for i, row in enumerate(rows):
        begin = 1
        for count in pieces[row][1]:  # a word of white space alone has no pieces
            found.append(x[i, begin : begin + count].mean(0) if count else torch.zeros_like(x[i, 0]))
            begin += count
    return torch.stack(found)
