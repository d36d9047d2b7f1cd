"""What config/pretrain.yaml names so that hydra imports the plugin, from a checkout or from where it is installed."""

from hydra.experimental.callback import Callback


class ImportPlugin(Callback):
    """Does nothing: hydra imports this package to make one, and with it the interpolation ``${fairseq_lambda:}``."""
