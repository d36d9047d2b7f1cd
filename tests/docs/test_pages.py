"""What all pages share: links that lead somewhere, files, names and flags that exist, and a length that is read."""

import importlib
import pkgutil
import re
from dataclasses import fields

import pytest
from fairseq import options
from fairseq.registry import REGISTRIES
from pages import NEEDS, Page
from processes import ROOT

from fairseq_lambda.criterions.masked_lm_sop import MaskedLMSOPCriterionConfig
from fairseq_lambda.models.lambda_bert_config import LambdaBertConfig
from fairseq_lambda.tasks.masked_lm_sop_config import MaskedLMSOPConfig

PAGES = sorted(str(path.relative_to(ROOT)) for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
OF_TODAY = [name for name in PAGES if name != "CHANGELOG.md"]  # which names what is gone
OF_OTHERS = {
    "torchrun": "--standalone --max-restarts --nnodes --node-rank --rdzv-backend --rdzv-endpoint",
    "slurm": "--nodes --ntasks-per-node --requeue --array --mem --time --job-name --cpus-per-task --wrap --parsable "
    "--dependency --gpus-per-node --signal",
    "hydra": "--config-dir --config-name --config-path",
}


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name):
    page = Page(name)
    for target in re.findall(r"(?<!`)\]\(([^)\s]+)\)", page.text):
        if re.match("https?:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.path.parent / path).resolve() if path else page.path
        assert file.exists(), target
        assert not anchor or anchor in anchors(file.read_text(encoding="utf-8")), target


def anchors(text):
    """Return the anchors of a page's headings, as forges make them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", OF_TODAY)
def test_files_and_names_in_the_text_exist(name):
    text = re.sub(r"git show \w+:\S+", "", Page(name).text)
    folders = "fairseq_lambda|scripts|benchmarks|tests|docs|examples"
    for path in re.findall(rf"`((?:{folders})/[\w./-]*[\w/])(?=[` ])", text):
        assert (ROOT / path).exists() or re.search("NAME|SIZE", path), path
    for dotted in re.findall(r"`(fairseq_lambda(?:\.\w+)+)`", text):
        assert pkgutil.resolve_name(dotted), dotted


def all_flags():
    """Return the flags that the programs of this repository and fairseq-train with its plugin take."""
    sources = [*ROOT.glob("fairseq_lambda/commands/*.py"), *ROOT.glob("fairseq_lambda/corpora/*.py")]
    sources += [*ROOT.glob("benchmarks/**/*.py"), *ROOT.glob("scripts/*.sh"), *ROOT.glob("benchmarks/*.sh")]
    sources += ROOT.glob("examples/*.py")
    flags = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", "\n".join(path.read_text() for path in sources)))
    flags |= options.get_training_parser()._option_string_actions.keys()
    kinds = [LambdaBertConfig, MaskedLMSOPConfig, MaskedLMSOPCriterionConfig]
    for name in ("fine_tuning", "lambda_sentence_prediction", "lambda_sequence_tagging"):
        module = importlib.import_module(f"fairseq_lambda.tasks.{name}")
        kinds += [kind for key, kind in vars(module).items() if key.endswith("Config")]
    for registry in ("optimizer", "lr_scheduler"):
        kinds += filter(None, REGISTRIES[registry]["dataclass_registry"].values())
    flags |= {flag.replace("--", "--no-", 1) for flag in flags}  # of argparse.BooleanOptionalAction
    flags |= {"--" + field.name.replace("_", "-") for kind in kinds for field in fields(kind)}
    return flags | set(" ".join(OF_OTHERS.values()).split())


@pytest.fixture(scope="module")
def flags():
    return all_flags()


@pytest.mark.parametrize("name", OF_TODAY)
def test_flags_exist(name, flags):
    text = re.sub(r"https?://\S+", "", Page(name).text)
    gone = set(re.findall(r"`(--[\w-]+)[^`]*` \(removed\)", Page("docs/ablations.md").text))
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*\w", text)) <= flags | gone


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_short_and_says_what_its_commands_need(name):
    page = Page(name)
    if name.startswith("docs/"):
        assert page.text.count("\n") < 200
    for block in page.blocks("bash"):
        assert block.needs is None or block.needs in NEEDS, block
