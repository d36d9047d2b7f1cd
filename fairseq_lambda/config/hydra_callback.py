"""The class that config/pretrain.yaml names so that hydra imports the plugin, from a checkout or an installation."""

from hydra.experimental.callback import Callback


class ImportPlugin(Callback):
    """Does nothing itself: to create it, hydra imports this package, which registers ``${fairseq_lambda:}``."""
