"""The task ``lambda_sequence_tagging``: a label per word."""

import logging

from fairseq.tasks import register_task

from fairseq_lambda.data.labelled import LabelledWords, read_list
from fairseq_lambda.modules.heads import TokenClassificationHead
from fairseq_lambda.tasks.fine_tuning import REMEDY, FineTuningConfig, FineTuningTask

logger = logging.getLogger(__name__)


@register_task("lambda_sequence_tagging", dataclass=FineTuningConfig)
class LambdaSequenceTaggingTask(FineTuningTask):
    """Prediction from the features of each word's first piece."""

    HEAD = "sequence_tagging_head"
    OBJECTIVES = ("tagging",)

    def load_dataset(self, split: str, epoch: int = 1, combine: bool = False, **kwargs) -> None:
        """Load ``split``; log how many texts it has and how many are divided into parts.

        Raises:
            FileNotFoundError, ValueError: it is missing or damaged.
        """
        words, marks = (read_list(self.path(split, what)) for what in ("input0", "label"))
        if list(words.sizes) != list(marks.sizes):
            raise ValueError(f"{self.path(split, 'label')} does not match the words of input0: {REMEDY}")
        dataset = LabelledWords(words, marks, self.dictionary, **self.dataset_options(split))
        logger.info(
            f"{split}: {len(words)} texts, {dataset.shortened} divided into parts of {self.max_positions()} tokens"
        )
        self.datasets[split] = dataset

    def build_head(self, model) -> None:
        model.register_classification_head(self.HEAD, num_classes=self.labels.outputs, kind=TokenClassificationHead)
