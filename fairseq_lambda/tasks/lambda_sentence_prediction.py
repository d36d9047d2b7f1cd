"""The task ``lambda_sentence_prediction``: one label, several labels or a number for a text or a pair of texts."""

import logging
from dataclasses import dataclass, field

import numpy as np
from fairseq.dataclass import ChoiceEnum
from fairseq.tasks import register_task

from fairseq_lambda.data.labelled import LabelledTexts, read_list
from fairseq_lambda.modules.heads import CLASSIFIERS
from fairseq_lambda.tasks.fine_tuning import REMEDY, FineTuningConfig, FineTuningTask

logger = logging.getLogger(__name__)


@dataclass
class LambdaSentencePredictionConfig(FineTuningConfig):
    pooling: ChoiceEnum(list(CLASSIFIERS)) = field(
        default="cls",  # of models from before there was a choice
        metadata={"help": "what the head reads: cls (the features of <s>) or mean (the mean of all tokens' features)"},
    )


@register_task("lambda_sentence_prediction", dataclass=LambdaSentencePredictionConfig)
class LambdaSentencePredictionTask(FineTuningTask):
    """Prediction from one vector per text; texts are read as ``<s> A </s> </s> B </s>``, as in pretraining."""

    OBJECTIVES = ("classification", "multilabel", "regression")

    def build_head(self, model) -> None:
        kind = CLASSIFIERS[getattr(self.cfg, "pooling", "cls")]
        model.register_classification_head(self.HEAD, num_classes=self.labels.outputs, kind=kind)

    def load_dataset(self, split: str, epoch: int = 1, combine: bool = False, **kwargs) -> None:
        """Load ``split``; log how many texts it has and how many are shortened.

        Raises:
            FileNotFoundError, ValueError: it is missing or damaged.
        """
        inputs = [read_list(self.path(split, f"input{i}")) for i in range(self.labels.texts)]
        file = self.path(split, "label.npy")
        try:
            targets = np.load(file, allow_pickle=False)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{file} is missing: {REMEDY}") from error
        except (ValueError, EOFError) as error:
            raise ValueError(f"{file} is damaged ({error}): {REMEDY}") from error
        if any(len(texts) != len(targets) for texts in inputs):
            raise ValueError(f"{file} has {len(targets)} labels, but there are {len(inputs[0])} texts: {REMEDY}")
        dataset = LabelledTexts(inputs, targets, self.dictionary, **self.dataset_options(split))
        logger.info(
            f"{split}: {len(dataset)} texts, {dataset.shortened} of them shortened to {self.max_positions()} tokens"
        )
        self.datasets[split] = dataset
