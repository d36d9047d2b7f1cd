"""The data side of the task: samples per second of one worker, load time and memory.

One row per sample length: the corpus is loaded in a fresh process (task.load_dataset, which checks all tokens and plans
the first epoch), then batches are read as a data loader's worker reads them, in random order, with masks and padding,
whose share of all places is printed. Memory is what the process holds beyond the maps of the files (RssAnon), sampled
every few milliseconds, above what it held before loading.
"""

import argparse
import multiprocessing
import tempfile
import threading
import time
from pathlib import Path

import measuring
import numpy as np
from fairseq.data import Dictionary
from fairseq.data.indexed_dataset import MMapIndexedDataset

COLUMNS = {
    "tokens_per_sample": "n",
    "samples_per_second": "samples/s",
    "tokens_per_second": "tokens/s",
    "load_seconds": "load s",
    "next_epoch_seconds": "next epoch s",
    "padding": "padding",
    "peak_mb": "peak MB",
    "held_bytes_per_sentence": "held B/sentence",
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="binarised folder (default: a synthetic corpus)")
    parser.add_argument("--repeat", type=int, default=1, help="copies of the corpus (%(default)s)")
    parser.add_argument("--objective", choices=["sop", "nsp", "none"], default="sop")
    parser.add_argument("--tokens-per-sample", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--batch-tokens", type=int, default=16384, help="per batch (%(default)s)")
    parser.add_argument("--seconds", type=float, default=5, help="of reading, per row (%(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, default=measuring.RESULTS / "data_loading.jsonl")
    options = parser.parse_args()
    if options.repeat < 1:
        parser.error(f"--repeat {options.repeat}: must be at least 1")
    if options.data is not None and not (options.data / "train.idx").is_file():
        parser.error(f"--data {options.data}: no train.idx; run scripts/preprocess_wikitext.sh")

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        corpus = write_corpus(options.data, folder, options.repeat, options.seed)
        rows = [run_apart(measure, folder, n, options) for n in options.tokens_per_sample]
    setting = measuring.setting("cpu", options.seed)
    print(measuring.markdown([list(COLUMNS.values()), *([f"{row[key]:,.6g}" for key in COLUMNS] for row in rows)]))
    print(f"\n{measuring.setting_line(corpus)}\n{measuring.setting_line(setting)}")
    known = {**corpus, "objective": options.objective, "setting": setting}
    measuring.write_lines(options.json, [row | known for row in rows])


def write_corpus(source: Path | None, folder: Path, repeat: int, seed: int) -> dict:
    """Write ``repeat`` copies of the training split, an empty line between them; return counts."""
    if source is None:
        sizes, tokens, dictionary = synthetic(seed)
        dtype = np.uint16
    else:
        index = MMapIndexedDataset.Index(str(source / "train.idx"))
        sizes, dtype = index.sizes.copy(), index.dtype
        tokens = np.fromfile(source / "train.bin", dtype=dtype)
        dictionary = Dictionary.load(str(source / "dict.txt"))
    dictionary.save(str(folder / "dict.txt"))
    eos = dictionary.eos()
    with open(folder / "train.bin", "wb") as file:
        for _ in range(repeat):
            np.append(tokens, eos).astype(dtype).tofile(file)
    with MMapIndexedDataset.Index.writer(str(folder / "train.idx"), dtype) as index:
        index.write(np.tile(np.append(sizes, 1), repeat).tolist())
    return {
        "corpus": f"{source or 'synthetic'} x {repeat}",
        "sentences": int(np.count_nonzero(sizes > 1)) * repeat,
        "tokens": len(tokens) * repeat,
    }


def synthetic(seed: int, documents: int = 600, words: int = 8000):
    """Return sizes, tokens and dictionary of a corpus of about the shape of WikiText-2."""
    rng = np.random.default_rng(seed)
    dictionary = Dictionary()
    for i in range(words):
        dictionary.add_symbol(f"w{i}")
    sizes = 2 + rng.lognormal(3.2, 0.6, size=documents * 128).astype(np.int64)
    sizes[::128] = 1  # the empty lines
    tokens = np.minimum(4 + rng.zipf(1.2, size=sizes.sum()), 3 + words)
    tokens[np.cumsum(sizes) - 1] = dictionary.eos()
    return sizes, tokens, dictionary


def run_apart(function, *arguments):
    """Return ``function(*arguments)``, run in a fresh process so that its memory is its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def measure(folder: Path, tokens_per_sample: int, options) -> dict:
    """Load, plan another epoch, read: return one row of the table."""
    from fairseq_lambda.tasks import MaskedLMSOPConfig, MaskedLMSOPTask

    cfg = MaskedLMSOPConfig(
        data=str(folder),
        sentence_objective=options.objective,
        tokens_per_sample=tokens_per_sample,
        seed=options.seed,
        required_seq_len_multiple=1,
    )
    task = MaskedLMSOPTask.setup_task(cfg)
    row = {"tokens_per_sample": tokens_per_sample}
    with Memory() as memory:
        row["load_seconds"] = measuring.seconds(lambda: task.load_dataset("train"), "cpu")
        dataset = task.dataset("train")
        row["next_epoch_seconds"] = measuring.seconds(lambda: dataset.set_epoch(2), "cpu")
    row["peak_mb"] = memory.peak / 2**20
    held = dataset.corpus.content.nbytes + sum(
        array.nbytes for array in vars(dataset.plan).values() if isinstance(array, np.ndarray)
    )
    row["held_bytes_per_sentence"] = held / dataset.corpus.num_sentences

    batches = dataset.batch_by_size(dataset.ordered_indices(), max_tokens=options.batch_tokens)
    samples = tokens = places = 0
    order = np.random.default_rng(options.seed).permutation(len(batches))
    start = time.perf_counter()
    for number in np.tile(order, 1000):
        batch = dataset.collater([dataset[i] for i in batches[number]])
        samples, tokens = samples + batch["nsentences"], tokens + batch["ntokens"]
        places += batch["net_input"]["src_tokens"].numel()
        if (elapsed := time.perf_counter() - start) > options.seconds:
            break
    return {
        **row,
        "samples_per_second": samples / elapsed,
        "tokens_per_second": tokens / elapsed,
        "padding": 1 - tokens / places,
    }


class Memory:
    """Context manager: ``peak`` is the most memory held within, maps of files aside, in bytes."""

    def __enter__(self):
        self._before, self.peak, self._done = self._held(), 0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._done.set()
        self._thread.join()

    def _watch(self):
        while not self._done.wait(0.003):
            self.peak = max(self.peak, self._held() - self._before)

    @staticmethod
    def _held() -> int:
        with open("/proc/self/status") as file:
            kilobytes = next(line.split()[1] for line in file if line.startswith("RssAnon"))
        return 1024 * int(kilobytes)


if __name__ == "__main__":
    main()
