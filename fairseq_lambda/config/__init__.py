"""Recipes: the settings of pretraining per model size, as YAML for the train command and fairseq-hydra-train."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

SIZES = ("tiny", "mini", "small", "medium", "base", "large")
FOLDER = Path(__file__).parent

# the path that Python imports the package from: fairseq refuses to import it from a second one
OmegaConf.register_new_resolver("fairseq_lambda", lambda: str(FOLDER.parent), replace=True)


def read_recipe(size: str) -> DictConfig:
    """Return fairseq's configuration for pretraining ``size``, in hydra's form, without the data folder.

    Raises:
        ValueError: there is no such size.
    """
    if size not in SIZES:
        raise ValueError(f"unknown size '{size}': {', '.join(SIZES[:-1])} or {SIZES[-1]}")
    recipe = OmegaConf.merge(
        OmegaConf.load(FOLDER / "pretrain.yaml"), OmegaConf.load(FOLDER / "recipes" / f"{size}.yaml")
    )
    return OmegaConf.masked_copy(recipe, [key for key in recipe if key not in ("defaults", "hydra")])


def schedule(updates: int) -> dict:
    """Return the settings of a recipe that depend on the number of updates: warm-up, end of the decay, saving."""
    return {
        "optimization": {"max_update": updates},
        "lr_scheduler": {"warmup_updates": min(updates // 10, 1000)},
        "checkpoint": {"save_interval_updates": 500 if updates < 5000 else 2000},
    }


def read_finetuning_recipe() -> DictConfig:
    """Return fairseq's configuration for fine-tuning, without the task, the model and the schedule."""
    return OmegaConf.load(FOLDER / "finetune.yaml")


def learning_rate(width: int) -> float:
    """Return the learning rate of fine-tuning for the model's width: 1e-3 up to 256, 1e-4 up to 512, 3e-5 above."""
    # for mini, the best of 1e-4, 3e-4 and 1e-3 on validation data (docs/quality.md); the others are BERT's
    return 1e-3 if width <= 256 else 1e-4 if width <= 512 else 3e-5


def finetuning_schedule(updates: int) -> dict:
    """Return the settings that depend on the number of updates: warm-up over 6 % of them, as RoBERTa's, then decay."""
    return {"lr_scheduler": {"warmup_updates": updates * 6 // 100, "total_num_update": updates}}
