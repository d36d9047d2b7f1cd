"""README's Python blocks run as they stand, and its figures are those of the included model and of the JSON lines."""

import json
import re
import shlex

import comparison
import probing
import probing_findings
import probing_rows
import pytest
import report
import tasks
from pages import Page
from processes import ROOT

from fairseq_lambda.commands import fill_mask
from fairseq_lambda.config import learning_rate

SPEED = ROOT / "benchmarks/results/speed"
NAMES = {"Lambda, one attention layer, whole corpus": "lambda_bert_mini-enwiki"}  # as which it is included


def lines(name: str) -> list[dict]:
    text = (ROOT / f"benchmarks/results/{name}.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_python_blocks_run(tmp_path):
    scope = Page("README.md").python(tmp_path)
    assert scope["content_lambda"].shape == (2, 16, 64) and scope["y"].shape == (2, 100, 768)
    scope = Page("docs/python.md").python(tmp_path)
    assert scope["features"].shape[:2] == (1, len(scope["ids"]))


def test_the_included_model_prints_what_is_shown(capsys):
    command, shown = next(block for block in Page("README.md").commands() if " fill-mask " in block).splitlines()
    fill_mask.main(shlex.split(command)[2:])
    assert shown == f"# {capsys.readouterr().out.splitlines()[1].strip()}"


def test_the_readme_is_read_in_ten_minutes():
    assert Page("README.md").text.count("\n") <= 150


@pytest.mark.parametrize(
    "file, name, after",
    [
        ("README.md", "enwiki", ""),
        ("docs/quality.md", "enwiki", "Sixty-two"),
        ("docs/quality.md", "baseline", "WikiText-2:"),
        ("docs/quality.md", "long", "ten epochs"),
    ],
)
def test_quality_is_what_the_report_prints(file, name, after):
    compared, results = comparison.open_comparison(name)
    models = report.by_model(compared, results.lines)
    baseline = {run["seed"]: run for run in models.get(compared.baseline, [])}
    rows = Page(file).table(r"model \| updates", after)
    assert len(rows) >= 2
    for model, *cells in rows:
        printed = report.row(models[model], baseline, report.reference(compared, models))
        assert set(cells) <= set(printed), (cells, printed)


def test_what_is_said_of_enwiki_is_what_was_trained():
    page, (_, results) = Page("docs/quality.md"), comparison.open_comparison("enwiki")
    found = {line["model"]: line for line in results.lines if line["seed"] == 1}
    updates = re.search(r"^\| updates \| (.*) \|$", page.text, re.MULTILINE)[1].split(" | ")
    rows = page.table("updates")
    curves = {model: {f"{at['updates']:,}": at["valid_ppl"] for at in line["curve"]} for model, line in found.items()}
    trunks = ["Transformer trunk", "hybrid trunk", "lambda trunk"]
    assert [row[1:] for row in rows if row[0] != "its ratio"] == [
        [f"{curves[t][n]:.2f}" for n in updates] for t in trunks
    ]
    ratios = [[f"{curves[trunk][n] / curves[trunks[0]][n]:.2f}" for n in updates] for trunk in trunks[1:]]
    assert [row[1:] for row in rows if row[0] == "its ratio"] == ratios
    for model, *cells in page.table("valid perplexity, read at once"):
        assert cells == [report.length_cell(found[model]["lengths"][n]) for n in ("128", "512", "2048")], model
    readme = " ".join(Page("README.md").text.split())
    more = 100 * found["Lambda, one attention layer, whole corpus"]["lengths"]["2048"]["ratio"] - 100
    assert f"reads 2,048 tokens at once with {more:.0f} % more perplexity than 128." in readme
    over = [report.perplexity(found[name]) for name in ("Lambda, one attention layer", "Transformer, rotary positions")]
    assert f"After equal updates their perplexity is {100 * over[0] / over[1] - 100:.0f} % above a Tr" in readme
    names = {"rotary baseline": 1, "hybrid": 2, "lambda only": 3}
    rates = {row[0]: row for row in page.table("learning rate")}
    for line in comparison.open_comparison("enwiki_rates")[1].lines:
        if "scores" in line:
            assert rates[line["lr"]][names[line["model"]]] == f"{report.perplexity(line):.2f}"
        if "in_turns" in line:
            assert f"{line['in_turns']['ms_per_update']}" in page.text


def test_what_models_know_is_what_was_measured():
    asked = {line["model"]: line["accuracy"]["all"] for line in lines("quality/facts")}
    results = [json.loads(path.read_text()) for path in (ROOT / "benchmarks/results/quality/blimp").glob("*.json")]
    overall = {scores["name"]: scores["overall"].values() for scores in results}
    rows = Page("docs/quality.md").table(r"model \| BLiMP, one mask")
    assert len(rows) >= 2
    for model, *cells in rows:
        model = NAMES.get(model, model)
        values = [f"{value:.1f}" for value in overall[model]] if model in overall else ["-", "-"]
        assert cells == values + [f"{value:.0f}" for value in asked[model].values()], model


def test_what_layers_encode_is_what_was_probed():
    page = Page("docs/inspection.md")
    _, found = probing.read_lines(ROOT / "benchmarks/results/quality/probing.jsonl")
    (header,) = re.findall(r"^\| task \| majority \| (.*) \|$", page.text, re.MULTILINE)
    names = [name.strip("`") for name in header.split(" | ")]
    rows = page.table("task")
    assert [row[0] for row in rows] == [task.replace("_", " ") for task in probing_rows.tasks_of(found)]
    for task, majority, *cells in rows:
        features = probing_rows.by_layer(found, task.replace(" ", "_"))
        best = {name: probing_rows.best(layers)[1] for name, layers in features.items()}
        assert majority == f"{best['mean of states'][0]['majority']:.1f}"
        assert cells == [f"{probing_rows.mean(best[n], 'test'):.1f}" if n in best else "-" for n in names], task
    text = " ".join(page.text.split())
    assert probing_findings.answer(found) in text

    def score(task, name):
        return f"{probing_rows.score(probing_rows.by_layer(found, task)[name]):.1f} %"

    untrained, bag = score("order", "untrained lambda"), score("order", "bag of words")
    assert f"`<s>` reaches {score('order', '<s>')}, but untrained content lambdas reach {untrained}" in text
    assert f"a bag of words {bag}" in text
    length = score("depth", "length alone")
    assert f"length alone reaches {length}, content lambdas {score('depth', 'content lambda')}" in text
    words = probing_rows.by_layer(found, "word_content")["content lambda"][0][0]
    assert f"content lambda reaches {words['test']:.1f} % on word content" in text
    assert f"{words['test'] - words['majority']:.1f} above chance" in text
    each = words["examples"]["train"] / words["classes"]
    assert f"{words['classes']} classes with {each:.1f} training sentences each" in text
    tense = score("tense", "mean of states")
    assert f"content lambdas reach {score('tense', 'content lambda')}, the mean of the states {tense}" in text


def test_labelled_tasks_were_learned_as_the_page_says():
    groups = tasks.chosen_runs(lines("quality/tasks"))
    rows, rates = Page("docs/quality.md").table(r"task \| score"), []
    models = ("majority", "bag of words", "included model", "included model, not pretrained")
    for name, _, *cells in rows:
        runs = [groups[name.split()[0], model] for model in models]
        assert cells == [tasks.cell(found) for found in runs] and len(runs[2]) == len(runs[3]) == 3, name
        rates.append(runs[2][0]["lr"])
    assert set(rates) == {learning_rate(256)}, "the default is the best for the included model in all tasks"
    assert {name.split()[0] for name, *_ in rows} == tasks.read_tasks(None).keys(), "every task has a row"
    found = {}
    for line in lines("quality/tasks"):
        found.setdefault((line["task"], line["model"], line.get("lr")), []).append(line)
    for read, *cells in Page("docs/quality.md").table("the head reads"):
        model = "included model, first token" if read == "the first token" else "included model"
        runs = [("trec", 1e-3), ("sst2", 1e-3), ("20ng", 1e-3), ("sst2", 1e-4)]
        assert cells == [tasks.cell(found[task, model, lr]) for task, lr in runs], read


def test_sentence_order_is_told_by_nothing():
    page, lines_ = Page("docs/quality.md"), comparison.open_comparison("enwiki")[1].lines
    found = [point["order_acc"] for line in lines_ for point in line["curve"]]
    assert f"{min(found):.1f} to {max(found):.1f} % in the {len(found)} validations" in page.text
    rules = {line["rule"]: line for line in lines("quality/order_controls")}
    chance = rules.pop("chance")
    assert f"{chance['pairs']:,} validation pairs, chance being {chance['accuracy']:.1f} %" in page.text
    assert page.table("rule") == [[rule, f"{line['accuracy']:.1f}"] for rule, line in rules.items()]


def test_longer_texts_were_read_as_the_page_says():
    found = {(line["model"], line["tokens"]): line for line in lines("quality/length_control")}
    models = ("lambda only", "position only", "hybrid, equal parameters, 3,000 updates", "rotary baseline")
    for model, (_, *cells) in zip(models, Page("docs/quality.md").table(r"model \| 512 tokens"), strict=True):
        rows = [found[model, tokens] for tokens in (512, 2048, 8192)]
        assert cells == [f"{row['ratio']:.3f} ± {row['standard_error']:.3f}" for row in rows]
    more, baseline = 100 * found[models[0], 8192]["ratio"] - 100, found[models[3], 8192]["ratio"]
    readme = " ".join(Page("README.md").text.split())
    assert f"8,192 at once with {more:.1f} % more perplexity than in windows of 128" in readme
    assert f"Transformer's is {baseline:.1f} times as high" in readme


def test_speed_is_what_was_measured():
    page = Page("docs/speed.md")
    for name, column in (("mixing-cpu-float32", True), ("mixing-cpu-bfloat16", False)):
        rows = {(line["model"], line["length"]): line["forward_backward"] for line in lines(f"speed/{name}")}
        found = [f"{rows['softmax', n] / rows['banded', n]:.1f}" for n in (128, 512, 2048, 8192)]
        if column:
            assert [row[5] for row in page.table(r"tokens \| ours, ms")[:4]] == found
        else:
            assert f"softmax / ours is {', '.join(found[:3])} and {found[3]}." in page.text
    rows = {(line["model"], line["length"]): line for line in lines("speed/training_step-cpu-none")}
    models, pairs = ("lambda", "hybrid", "lambda-wide", "baseline", "roberta"), ("baseline",) * 3 + ("roberta",)
    over = {}
    for tokens, *cells in page.table(r"tokens \| lambda \| hybrid"):
        of = {model: rows.get((model, int(tokens.replace(",", "")))) for model in models}
        assert cells[:5] == [f"{row['tokens_per_second']:,.0f}" if row else "" for row in of.values()]
        over[tokens] = [
            f"{of[peer]['seconds'] / of[ours]['seconds']:.2f}" if of[peer] else ""
            for ours, peer in zip(("lambda", "hybrid", "lambda-wide", "lambda"), pairs, strict=True)
        ]
        assert cells[5:9] == over[tokens], tokens
        peak = [f"{of[model]['peak_bytes'] / 2**30:.2f}" for model in ("lambda", "baseline")]
        assert cells[9] == " / ".join(peak), tokens
    readme = " ".join(Page("README.md").text.split())
    short, long = over["512"][1], float(over["8,192"][1])
    assert f"{long:.1f} times as long at 8,192 tokens, and {short} times at 512, as one with one attention" in readme
    ours, theirs = (rows[model, 8192] for model in ("lambda", "baseline"))
    fewer, less = 100 - 100 * ours["parameters"] / theirs["parameters"], ours["peak_bytes"] / theirs["peak_bytes"]
    said = f"`lambda` has {fewer:.0f} % fewer parameters than `baseline`, and its peak memory is {less:.1f} of the"
    assert said in page.text


def test_peers_took_what_the_page_says():
    ratios_of = {
        (size, precision, line["model"], line["length"]): f"{line['time over transformers']:.2f}"
        for size in ("mini", "base")
        for precision in ("none", "bfloat16")
        for line in lines(f"speed/peers-{size}-cpu-{precision}")
    }
    names = {"BERT": "bert", "ModernBERT": "modernbert-dense", "lambda_bert by fairseq's trainer": "fairseq"}
    rows = Page("docs/speed.md").table(r"model \| tokens")
    assert len(rows) == 12
    for name, tokens, *cells in rows:
        model, length = names.get(name, "modernbert"), int(tokens.replace(",", ""))
        kinds = [(size, precision) for size in ("mini", "base") for precision in ("none", "bfloat16")]
        assert cells == [ratios_of.get((*kind, model, length), "") for kind in kinds], (name, tokens)


def test_peers_have_the_parameters_that_the_page_says():
    sizes = [
        {line["model"]: line["parameters"] for line in lines(f"speed/peers-{size}-cpu-none") if line["length"] == 128}
        for size in ("mini", "base")
    ]
    ours, bert, modernbert = (
        " and ".join(f"{size[model] / 1e6:.1f}" for size in sizes) for model in ("transformers", "bert", "modernbert")
    )
    said = f"{ours} million parameters, BERT {bert}, ModernBERT {modernbert}."
    assert said in " ".join(Page("docs/speed.md").text.split())


def test_long_texts_took_what_the_pages_say():
    found = {(line["what"], line["model"], line["length"]): line for line in lines("speed/long_text-cpu")}
    for tokens, model, *cells in Page("docs/long-texts.md").table("tokens in a sample"):
        row = found.pop(("training", model, int(tokens.replace(",", ""))))
        for i, prefix in enumerate(("", "packed_")):
            if prefix + "seconds" in row:
                time, memory = (row[f"{prefix}{what}_per_token"] for what in ("seconds", "bytes"))
                assert (cells[i], cells[2 + i]) == (f"{1e6 * time:,.0f}", f"{memory / 2**10:.1f}"), (tokens, model)
            else:
                assert cells[i] == cells[2 + i] == ""
    for tokens, model, *cells in Page("docs/speed.md").table(r"tokens \| model"):
        row = found.pop(("features", model, int(tokens.replace(",", ""))))
        seconds, peak = row["seconds"], row["peak_bytes"] / 2**20
        assert cells == [f"{seconds:.2f}", f"{1e6 * seconds / row['length']:.0f}", f"{peak:.0f}"], (tokens, model)
    assert not found


def test_a_busy_neighbour_costs_what_the_page_says():
    (line,) = lines("speed/busy_neighbour")
    page = Page("docs/speed.md")
    for name, *cells in page.table("threads that wait"):
        assert cells == [f"{1000 * line['seconds'][name.split(':')[0]][k]:,.0f}" for k in ("quiet", "busy")], name
    default, short = line["seconds"]["default"], line["seconds"]["short spin"]
    assert f"costs {100 * short['quiet'] / default['quiet'] - 100:.0f} % alone" in page.text
    assert f"{default['busy'] / short['busy']:.1f} times as fast as the default under load" in page.text


def test_the_h100_is_as_its_results_say():
    stages = {stage["stage"]: stage["rows"] for stage in json.loads((SPEED / "gpu-h100.json").read_text())}
    mixing = {(row["length"], row["model"]): row for row in stages["mixing"] if "both device" in row}
    page = Page("docs/speed.md")
    for length, ours, softmax, ratio, *_ in page.table(r"tokens \| lambda \| softmax \| ratio"):
        times = [mixing[int(length.replace(",", "")), model]["both device"] for model in ("triton", "softmax")]
        assert [ours, softmax, ratio] == [f"{1000 * t:.2f}" for t in times] + [f"{times[1] / times[0]:.1f}"], length
    steps = {(row["model"], row["length"]): 1000 * row["seconds"] for row in stages["step"]}
    models = ("lambda", "hybrid", "softmax, rotary", "BERT, transformers", "ModernBERT, transformers")
    for model, (_, *cells) in zip(models, page.table(r"model \| 512 tokens"), strict=True):
        assert [cell.split()[0] for cell in cells] == [f"{steps[model, n]:.0f}" for n in (512, 2048, 8192)], model


def test_preparing_text_took_what_the_page_says():
    rows = [line for copies in ("", "-2_copies") for line in lines(f"speed/preprocessing{copies}")]
    cells = [[f"{r['seconds']:.0f}", f"{r['cpu_seconds']:.0f}", f"{r['peak_rss'] / 1e6:,.0f}"] for r in rows]
    assert [row[1:] for row in Page("docs/speed.md").table("text")] == cells
    assert f"prepared in {cells[0][0]} seconds" in Page("README.md").text


def test_ablations_are_what_was_trained():
    made = [line for name in ("settled", "ablations", "baseline") for line in lines(f"quality/{name}")]
    made = {
        (f"{line['updates']:,}", f"{report.perplexity(line):.2f}", line["setting"]["commit"][:7])
        for line in made
        if "scores" in line
    }
    rows = Page("docs/ablations.md").table("option")
    assert len(rows) > 20
    for row in rows:
        assert tuple(row[2:4] + row[5:6]) in made, row
        assert row[4] == "-" or any(perplexity == row[4] for _, perplexity, _ in made), row
